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

// await carries out what r.result asks for, and hands the answers to the stage, until it awaits no more. Meanwhile the
// exchange holds no instance, and no lock: uploads go on. all is where the stage's time is over.
func (r *Run) await(ctx context.Context, s *stage, all time.Time) error {
	kind := r.event.Kind
	for round := 1; r.result.Action == abi.ActionAwait; round++ {
		if time.Now().After(all) {
			return &plugin.Fault{Plugin: s.Plugin.Name, Phase: s.Phase, Kind: plugin.Timeout, Detail: fmt.Sprintf("awaits when its time of %s is over", s.Timeout)}
		}
		r.keep(s)
		// The requests point into the result's memory, which other stages would use meanwhile: they get another one.
		var calls []fetch.Call
		for _, op := range r.result.Ops {
			if op.Code == abi.OpFetch {
				calls = append(calls, fetch.Call{Name: string(op.Key), Value: op.Value})
			}
		}
		r.result, r.room = plugin.Result{}, nil
		answers, err := r.unlocked(kind, func() (*fetch.Answers, error) {
			return s.fetcher.Do(&deadline{Context: ctx, at: all}, calls)
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		r.event = plugin.Event{
			Kind: abi.EventFetched, Stage: s.number, Exchange: r.x, Carry: r.carries[s.memory], Gone: r.gone, HasBody: true, Body: answers.Value, Awaited: round,
		}
		until := all
		if last := time.Now().Add(lastWord); last.After(until) {
			until = last
		}
		err = r.hand(ctx, s, time.Now(), until)
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
func (r *Run) keep(s *stage) {
	for i := range r.result.Ops {
		op := &r.result.Ops[i]
		switch op.Code {
		case abi.OpCarry:
			r.carries[s.memory] = append([]byte(nil), op.Value...)
		case abi.OpMeter:
			s.metrics.Meter(string(op.Key), float64(int64(binary.LittleEndian.Uint64(op.Value))))
		}
	}
}
