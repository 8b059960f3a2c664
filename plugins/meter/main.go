// Command meter is a Postern plugin that lets a prepaid balance pay for model calls: its main type is plugin. In the admit
// phase it holds the most a call can cost; in the account phase it settles what the call did cost, or releases the hold.
package main

import (
	"errors"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

var _ = postern.Register(new(plugin))

func main() {}

// plugin is one instance.
type plugin struct{ hold []byte }

// Slots, in the order of plugin.hcl.
const (
	slotAccount = iota // of the admit hook
	slotModel
	slotMax
)

const (
	slotHold = iota // of the account hook
	slotUsage
	slotEstimated
	slotTags
)

// Configure has nothing to read: what there is is per request.
func (p *plugin) Configure(*postern.Stage) error { return nil }

// On places or ends a hold.
func (p *plugin) On(e *postern.Event, r *postern.Result) error {
	switch e.Kind {
	case abi.EventRequest:
		return p.admit(e, r)
	case abi.EventAccount:
		return p.account(e, r)
	}
	return nil
}

func (p *plugin) admit(e *postern.Event, r *postern.Result) error {
	account := e.Value(slotAccount).Bytes()
	if len(account) == 0 {
		return errors.New("nobody was identified: the policy needs an authenticate stage")
	}
	hold, _, err := e.Host.Hold(account, e.Value(slotModel).Bytes(), e.Value(slotMax))
	switch {
	case errors.Is(err, postern.ErrInsufficient):
		r.Respond(402, "insufficient_balance", "The account's balance does not cover the most this call can cost.")
		return nil
	case errors.Is(err, postern.ErrNotFound):
		r.Respond(402, "insufficient_balance", "The account has no balance.")
		return nil
	case errors.Is(err, postern.ErrUnavailable):
		r.SetHeader("retry-after", "5")
		r.Respond(503, "ledger_unavailable", "Paid calls can not be served now.")
		return nil
	case err != nil:
		return err
	case len(hold) == 0:
		return errors.New("the host placed a hold without an id")
	}
	r.Carry(hold) // the gateway notes the hold on the exchange itself
	return nil
}

func (p *plugin) account(e *postern.Event, r *postern.Result) error {
	// The attribute is what the gateway knows; the carry is there even if another plugin's hold has taken its place.
	hold := e.Carry()
	if len(hold) == 0 {
		hold = e.Value(slotHold).Bytes()
	}
	if len(hold) == 0 {
		return nil // no hold was placed: the call was refused before, or is free
	}
	p.hold = append(p.hold[:0], hold...)
	r.Carry(nil)
	usage := e.Value(slotUsage)
	if zero(usage) {
		return p.release(e, r)
	}
	_, err := e.Host.Settle(p.hold, usage, e.Value(slotEstimated).Bool(), e.Value(slotTags))
	if errors.Is(err, postern.ErrInvalid) { // tags that the ledger does not take must not leave the hold open
		e.Host.Warn("the ledger did not take the tags: settled without")
		_, err = e.Host.Settle(p.hold, usage, e.Value(slotEstimated).Bool(), postern.Value{})
	}
	switch {
	case err == nil:
		r.Meter("settled", 1)
	case errors.Is(err, postern.ErrNotFound):
		r.Meter("gone", 1)
		e.Host.Warn("the hold was not there any more: it expired, or was settled before")
	default:
		return err // the ledger settles it by what it has seen of the call when the hold expires
	}
	return nil
}

// release ends a hold of a call that nothing was served for.
func (p *plugin) release(e *postern.Event, r *postern.Result) error {
	switch err := e.Host.Release(p.hold); {
	case err == nil:
		r.Meter("released", 1)
	case errors.Is(err, postern.ErrNotFound):
		r.Meter("gone", 1)
	default:
		return err
	}
	return nil
}

// zero reports that no unit was used.
func zero(usage postern.Value) bool {
	for _, n := range usage.Each {
		if n.Int() != 0 {
			return false
		}
	}
	return true
}
