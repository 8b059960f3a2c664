package policy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Fetcher makes the requests that a stage awaits, and answers each; a *fetch.Fetcher is one. An error means that the
// exchange is over: nobody waits for the answers.
type Fetcher interface {
	Do(ctx context.Context, calls []fetch.Call) (*fetch.Answers, error)
}

// lastWord is what a stage has to answer in, over its timeout, when what it awaited took all of that: it may well want to
// say something better than that it failed.
const lastWord = 100 * time.Millisecond

// errGone is the end of an exchange whose client went while a stage awaited.
var errGone = errors.New("the client has gone")

// gone is what becomes of it in log and metrics. There is nobody to read it.
func gone() *exchange.Problem {
	return &exchange.Problem{Status: 499, Code: "client_gone", Title: "The client went before there was an answer."}
}

// await carries out what t.result asks for, and hands the answers to the stage, until it awaits no more. Meanwhile the
// exchange holds no instance, and no lock: uploads go on. all is where the stage's time is over.
func (t *turn) await(ctx context.Context, s *stage, all time.Time) error {
	kind := t.event.Kind
	for round := 1; t.result.Action == abi.ActionAwait; round++ {
		if time.Now().After(all) {
			return &plugin.Fault{Plugin: s.Plugin.Name, Phase: s.Phase, Kind: plugin.Timeout, Detail: fmt.Sprintf("awaits when its time of %s is over", s.Timeout)}
		}
		t.keep(s)
		// The requests point into the result's memory, which other stages would use meanwhile: they get another one.
		var calls []fetch.Call
		for _, op := range t.result.Ops {
			if op.Code == abi.OpFetch {
				calls = append(calls, fetch.Call{Name: string(op.Key), Value: op.Value})
			}
		}
		t.result = plugin.Result{}
		answers, err := t.unlocked(kind, func() (*fetch.Answers, error) {
			return s.fetcher.Do(&deadline{Context: ctx, at: all}, calls)
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		t.event = plugin.Event{
			Kind: abi.EventFetched, Stage: s.number, Exchange: t.x, Carry: t.carry(s), Gone: t.gone, HasBody: true, Body: answers.Value, Awaited: round,
		}
		until := all
		if last := time.Now().Add(lastWord); last.After(until) {
			until = last
		}
		t.spent = time.Since(t.began)
		err = t.hand(ctx, s, until.Sub(t.began))
		t.look()
		answers.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// unlocked does something slow without the lock that an event of that kind is run under.
func (r *Run) unlocked(kind abi.Event, do func() (*fetch.Answers, error)) (*fetch.Answers, error) {
	if kind == abi.EventRequest {
		return do()
	}
	r.mu.Unlock()
	defer r.mu.Lock()
	return do()
}

// keep does what a result carries and meters.
func (t *turn) keep(s *stage) {
	for i := range t.result.Ops {
		op := &t.result.Ops[i]
		switch op.Code {
		case abi.OpCarry:
			if t.carries == nil {
				t.carries = make([][]byte, t.chain.memories)
			}
			t.carries[s.memory] = append([]byte(nil), op.Value...)
		case abi.OpMeter:
			s.metrics.Meter(string(op.Key), float64(int64(binary.LittleEndian.Uint64(op.Value))))
		}
	}
}

// deadline is a context that ends when its parent does and tells an earlier deadline, which what waits on it keeps.
type deadline struct {
	context.Context
	at time.Time
}

// Deadline returns the earlier of its own and the parent's deadline.
func (d *deadline) Deadline() (time.Time, bool) {
	if at, ok := d.Context.Deadline(); ok && at.Before(d.at) {
		return at, true
	}
	return d.at, true
}
