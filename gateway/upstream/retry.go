package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

const (
	// budgetFloor is how many retries in ten seconds are allowed whatever the budget, so that an upstream with little
	// traffic has any. A budget of 0 allows none.
	budgetFloor = 10
	// maxRetryAfter is the longest Retry-After that is waited for; a longer one is the caller's to wait for.
	maxRetryAfter = 2 * time.Second
	// maxBackoff bounds the doubled backoff.
	maxBackoff = 5 * time.Second
)

// budget bounds retries to a share of requests over the last ten seconds, so that an upstream in trouble does not get a
// multiple of its load on top.
type budget struct {
	share float64

	mu     sync.Mutex
	second int64 // of the newest slot
	slots  [10]struct{ requests, retries int }
}

// at makes the slot of now the newest and returns it. b.mu is held.
func (b *budget) at(now time.Time) *struct{ requests, retries int } {
	s := now.Unix()
	for ; b.second < s; b.second++ {
		if s-b.second > int64(len(b.slots)) {
			b.second = s - int64(len(b.slots))
		}
		b.slots[(b.second+1)%int64(len(b.slots))] = struct{ requests, retries int }{}
	}
	return &b.slots[b.second%int64(len(b.slots))]
}

// request counts a first attempt.
func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at(now).requests++
}

// retry counts another attempt, or refuses it.
func (b *budget) retry(now time.Time) bool {
	if b.share <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	slot := b.at(now)
	requests, retries := 0, 0
	for _, s := range b.slots {
		requests += s.requests
		retries += s.retries
	}
	if retries >= budgetFloor && float64(retries+1) > b.share*float64(requests) {
		return false
	}
	slot.retries++
	return true
}

// Again decides after an attempt whether there is to be another, and waits for its time. resp and err are what RoundTrip
// returned; when it returns true resp's body has been closed and the request is ready to be sent again. It returns false
// with resp's body closed only when ctx ended while it waited. It must not be called once anything of resp was given to the client.
//
// A request is repeated when the upstream's retry block lists what happened, attempts and budget are not used up, its
// body can be sent from the beginning, and doing it twice does no harm: nothing was sent; or the method is idempotent
// (RFC 9110 section 9.2.2); or the upstream refused it and the request says that a refusal means that nothing was done.
func (u *Upstream) Again(ctx context.Context, r *Request, resp *Response, err error) bool {
	retry := &u.cfg.Retry
	if err == nil && !u.retries(resp.Status) { // nearly always
		return false
	}
	if r.attempts >= max(retry.Attempts, 1) || !r.replayable() || r.Upgrade != "" || ctx.Err() != nil {
		return false
	}
	var after time.Duration
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || !e.Kind.fault() && e.Kind != Busy || e.Sent == Begun {
			return false
		}
		// A connection that is dead before anything was sent, or takes no more requests, is no connection.
		unsent := e.Sent == NotSent && slices.Contains(retry.On, string(Connect))
		if !unsent && !slices.Contains(retry.On, string(e.Kind)) {
			return false
		}
		if e.Sent != NotSent && !idempotent(r.Method) {
			return false
		}
	} else {
		if !idempotent(r.Method) && (!r.Refusals || !Refusal(resp.Status)) {
			return false
		}
		after = RetryAfter(resp.Header, time.Now())
		if after > maxRetryAfter {
			return false
		}
	}
	wait := backoff(retry.Backoff, r.attempts)
	wait = max(wait, after)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	if !u.budget.retry(time.Now()) {
		u.log.Debug("retry budget used up", "upstream", u.cfg.Name)
		return false
	}
	if resp != nil {
		_ = resp.Body.Close() // its connection goes, or its stream
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	rewind(r.Body)
	return true
}

// retries reports whether a status is one of those to repeat a request on.
func (u *Upstream) retries(status int) bool {
	if status < 400 {
		return false
	}
	if slices.Contains(u.cfg.Retry.On, strconv.Itoa(status)) {
		return true
	}
	return status >= 500 && slices.Contains(u.cfg.Retry.On, "5xx")
}

// Refusal reports whether a status says that the upstream did not do what it was asked.
func Refusal(status int) bool {
	switch status {
	case 429, 502, 503, 504, 529:
		return true
	}
	return false
}

// RetryAfter reads a Retry-After field (RFC 9110 section 10.2.3); 0 when there is none or it says nothing.
func RetryAfter(h exchange.Header, now time.Time) time.Duration {
	v := h.Get("retry-after")
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

// backoff is how long to wait before attempt n+1: doubled each time, and anywhere between half and one and a half of
// that, so that many who failed together do not come back together.
func backoff(first time.Duration, n int) time.Duration {
	d := first
	for i := 1; i < n && d < maxBackoff; i++ {
		d *= 2
	}
	d = min(d, maxBackoff)
	return time.Duration(float64(d) * (0.5 + rand.Float64()))
}
