package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/replay"
)

// replayTime bounds waiting for the store of replies, for the client and after it has gone.
const replayTime = 5 * time.Second

// recall looks at the idempotency key of a model call, once it is clear who calls and that he may. The first call under a
// key goes on, recorded; one that was made before is answered here, and w.replayed says so. What admits calls does not
// run for it: rates, holds and targets are for calls that are made.
func (w *way) recall(ctx context.Context) *exchange.Problem {
	r, x := w.route, w.x
	if r.Replay == 0 || !r.operation.Billed || x.Request.Method != "POST" || !x.Identity.Known() {
		return nil
	}
	key, given := x.Request.Header.Lookup("idempotency-key")
	if !given {
		return nil
	}
	if x.Request.Header.Count("idempotency-key") > 1 || !replay.ValidKey(key) {
		return &exchange.Problem{Status: 400, Code: "invalid_idempotency_key", Title: "The idempotency key can not be used.", Param: "Idempotency-Key",
			Detail: "One Idempotency-Key of 1 to 255 visible ASCII characters is taken."}
	}
	body, problem := w.run.Whole(ctx)
	if problem != nil {
		return problem
	}
	if allows := x.Identity.Allows; allows != nil && len(allows.Models) > 0 { // a reply is for those who may make the call
		call, problem := r.format.Read(r.operation, x.Request.Header, body, 0)
		if problem != nil {
			return problem
		}
		if _, problem = w.named(call.Model); problem != nil {
			return problem
		}
	}
	path := x.Request.Path
	if x.Request.Query != "" {
		path += "?" + x.Request.Query
	}
	claim, reply, err := w.server.storage.Replays.Begin(ctx, replay.Request{
		Account: x.Identity.Account, Key: key, Method: x.Request.Method, Path: path, Body: body, Exchange: x.ID, Keep: r.Replay,
	})
	switch {
	case err != nil:
		return w.notReplayed(ctx, err)
	case reply != nil:
		w.replayed, x.Answered = true, "idempotency-key"
		h := slices.Concat(reply.Header, exchange.Header{
			{Name: "idempotency-replayed", Value: "true"}, {Name: "postern-exchange", Value: x.ID}, {Name: "postern-original-exchange", Value: reply.Exchange},
		})
		send(ctx, x, reply.Status, h, reply.Body)
		return nil
	}
	w.claim = claim
	x.Reply = &recorder{Reply: x.Reply, way: w, ctx: context.WithoutCancel(ctx)}
	return nil
}

// notReplayed says why a call under an idempotency key is neither made nor answered by the first reply.
func (w *way) notReplayed(ctx context.Context, err error) *exchange.Problem {
	var lost *replay.LostError
	p := &exchange.Problem{Status: 409, Param: "Idempotency-Key"}
	switch {
	case errors.Is(err, replay.ErrReused):
		p.Status, p.Code, p.Title = 422, "idempotency_key_reused", "The idempotency key was used for another request."
	case errors.Is(err, replay.ErrInProgress):
		p.Code, p.Title, p.Retry = "idempotency_in_progress", "The first request with this idempotency key is under way.", time.Second
	case errors.As(err, &lost) && lost.Large:
		p.Code, p.Title = "idempotency_not_replayable", "The request was answered before, and its reply was too large to be kept."
		p.Detail = "It was charged once, as exchange " + lost.Exchange + ". Under a new key it is made, and charged, again."
	case errors.As(err, &lost):
		p.Code, p.Title = "idempotency_unknown", "The request was made before, and its reply broke off."
		p.Detail = "It was charged at most once, as exchange " + lost.Exchange + ". Under a new key it is made, and charged, again."
	default:
		if ctx.Err() == nil { // otherwise it was the client that did not wait
			w.server.telemetry.Log.ErrorContext(ctx, "call refused: its idempotency key can not be looked up", "exchange", w.x.ID, "error", err)
		}
		return replayUnavailable()
	}
	return p
}

func replayUnavailable() *exchange.Problem {
	return &exchange.Problem{Status: 503, Code: "idempotency_unavailable", Title: "Calls with an idempotency key can not be served now.", Retry: 5 * time.Second}
}

// begun has it on disk that the call is about to be made: whatever happens then, its key is not taken for a new one.
func (w *way) begun(ctx context.Context) error {
	if w.claim == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replayTime)
	defer cancel()
	err := w.claim.Begun(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	w.server.telemetry.Log.ErrorContext(ctx, "call refused: its idempotency key can not be recorded", "exchange", w.x.ID, "error", err)
	return replayUnavailable()
}

// conclude ends what is still open of keeping the reply, and the claim of a call whose reply was not kept. A call that cost nothing may be made again under its key;
// one that did, or may yet, must not.
func (w *way) conclude(ctx context.Context) {
	w.recorder.Close()
	if w.claim == nil || w.claim.Over() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTime)
	defer cancel()
	end := w.claim.Free
	if w.x.Hold != "" || w.x.Receipt != nil && w.x.Receipt.Amount.Sign() != 0 {
		end = w.claim.Lose
	}
	if err := end(ctx); err != nil {
		w.server.telemetry.Log.ErrorContext(ctx, "idempotency key not freed", "exchange", w.x.ID, "error", err)
	}
}

// recorder keeps a reply as it passes to the client. It is kept before its last octet leaves: a client that has all of it
// and sends the request again finds it.
//
// On a route that drains, the call goes on to its end when the client leaves, and so does the recording.
type recorder struct {
	exchange.Reply
	way     *way
	ctx     context.Context // outlives the client
	served  bool            // the status says that the request was
	length  int64           // of the body, or -1
	written int64
	sent    int64 // octets that the client was given
	gone    error // the client has gone, and the recording goes on
}

// Head passes the head on. Only replies that say that the request was served are kept; the key is free, if it is to be,
// before the client learns that its request failed.
func (k *recorder) Head(status int, h exchange.Header, length int64) error {
	k.served, k.length = status >= 200 && status < 300, length
	switch {
	case k.served:
		k.way.claim.Head(status, h)
		if length == 0 {
			k.keep()
		}
	case k.way.accounted:
		k.way.conclude(k.ctx)
	}
	return k.left(k.Reply.Head(status, h, length))
}

// Write passes a part of the body on.
func (k *recorder) Write(p []byte) (int, error) {
	if k.served {
		k.way.claim.Write(p)
		if k.written += int64(len(p)); k.written == k.length {
			k.keep()
		}
	}
	if k.alone() {
		return len(p), nil
	}
	n, err := k.Reply.Write(p)
	k.sent += int64(n)
	if err = k.left(err); err == nil {
		n = len(p)
	}
	return n, err
}

// Flush sends what is buffered.
func (k *recorder) Flush() error {
	if k.alone() {
		return nil
	}
	return k.left(k.Reply.Flush())
}

// End completes the reply. Where the client has gone, it says so now.
func (k *recorder) End(trailer exchange.Header) error {
	if k.served && k.length < 0 {
		k.keep()
	}
	if k.alone() {
		k.way.x.Response.Sent = k.sent
		return k.gone
	}
	return k.Reply.End(trailer)
}

// keep stores the reply. What fails then is not the client's business: it gets its reply, once.
func (k *recorder) keep() {
	ctx, cancel := context.WithTimeout(k.ctx, replayTime)
	defer cancel()
	if err := k.way.claim.Keep(ctx); err != nil {
		k.way.server.telemetry.Log.ErrorContext(ctx, "reply not kept for its idempotency key", "exchange", k.way.x.ID, "error", err)
	}
}

// alone reports whether the client has gone, and only the recording goes on.
func (k *recorder) alone() bool { return k.gone != nil }

// left goes on without a client that has gone, where the route reads calls to their end.
func (k *recorder) left(err error) error {
	if k.way.route.OnDisconnect == "drain" && errors.Is(err, exchange.ErrClientGone) {
		k.gone = err
		return nil
	}
	return err
}
