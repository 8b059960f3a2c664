package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// cookie names an operator's session. The prefix has the browser take it over TLS alone, for this host and all its paths.
const cookie = "__Host-postern-operator"

const (
	idle        = 30 * time.Minute // after which an unused session is over
	maxSessions = 100
	freeTries   = 5                // wrong tokens before a network has to wait
	longestWait = 15 * time.Minute // and for how long, at most
	maxNetworks = 10_000
)

// session is one operator, signed in.
type session struct {
	CSRF    string // every form that changes something bears it
	From    string // the address that signed in
	Since   time.Time
	until   time.Time
	used    time.Time
	mu      sync.Mutex
	secrets map[string]string // an API key that was just made, by its id, until it was shown
}

// keep holds a secret until it is shown.
func (s *session) keep(id, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = map[string]string{id: secret} // one: there is no reason to leave the page without having seen it
}

// show gives a secret, once.
func (s *session) show(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret := s.secrets[id]
	delete(s.secrets, id)
	return secret
}

// sessions are the operators that are signed in, and those who try. They are kept in memory: a restart signs out.
type sessions struct {
	now func() time.Time

	mu     sync.Mutex
	byID   map[[sha256.Size]byte]*session // by the hash of the cookie, so that memory holds nothing to sign in with
	failed map[netip.Prefix]*tries
}

// tries are a network's wrong tokens.
type tries struct {
	count int
	until time.Time // when the next try is looked at
	last  time.Time
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, byID: map[[sha256.Size]byte]*session{}, failed: map[netip.Prefix]*tries{}}
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open begins a session, always a new one: what the browser had before counts for nothing.
func (d *sessions) open(from string, lasts time.Duration) (id string) {
	id = random()
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	var oldest [sha256.Size]byte
	for key, s := range d.byID {
		if d.over(s, now) {
			delete(d.byID, key)
		} else if o := d.byID[oldest]; o == nil || s.used.Before(o.used) {
			oldest = key
		}
	}
	if len(d.byID) >= maxSessions {
		delete(d.byID, oldest)
	}
	d.byID[sha256.Sum256([]byte(id))] = &session{CSRF: random(), From: from, Since: now, until: now.Add(lasts), used: now}
	return id
}

func (d *sessions) over(s *session, now time.Time) bool {
	return !now.Before(s.until) || now.Sub(s.used) >= idle
}

// find is the session of a request, or nil.
func (d *sessions) find(r *http.Request) *session {
	c, err := r.Cookie(cookie)
	if err != nil {
		return nil
	}
	key, now := sha256.Sum256([]byte(c.Value)), d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byID[key]
	if s == nil {
		return nil
	}
	if d.over(s, now) {
		delete(d.byID, key)
		return nil
	}
	if r.Header.Get("Postern-Live") == "" { // a page that reads itself again is not somebody who is there
		s.used = now
	}
	return s
}

// end ends a session, or all.
func (d *sessions) end(s *session, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if all {
		clear(d.byID)
		return
	}
	for key, other := range d.byID {
		if other == s {
			delete(d.byID, key)
		}
	}
}

// may reports whether a network's next try is looked at, and otherwise when. It counts as a wrong one until succeeded says
// that it was not: many at once are no way round.
func (d *sessions) may(from netip.Prefix) (wait time.Duration, ok bool) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.failed[from]
	if t == nil {
		if len(d.failed) >= maxNetworks {
			for p, old := range d.failed {
				if now.Sub(old.last) > longestWait {
					delete(d.failed, p)
				}
			}
			if len(d.failed) >= maxNetworks {
				return longestWait, false // an attack of this breadth ends sooner or later; until then who is in stays in
			}
		}
		t = &tries{}
		d.failed[from] = t
	}
	if now.Sub(t.last) > longestWait && t.count > 0 {
		*t = tries{}
	}
	if now.Before(t.until) {
		return t.until.Sub(now), false
	}
	t.count++
	t.last = now
	if over := t.count - freeTries; over >= 0 {
		t.until = now.Add(min(longestWait, time.Second<<min(over, 20)))
	}
	return 0, true
}

func (d *sessions) succeeded(from netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.failed, from)
}

// same compares without telling by its time how much of it was right.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
