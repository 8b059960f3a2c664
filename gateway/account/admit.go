package account

import (
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Admit holds an exchange to what the API key allows by which its caller was identified, once the authenticate stages are
// over: the identity gets the key's allowance, and the exchange a problem when the key may not be used for its route, from
// its client's address, or so often. Models and costs are looked at when they are known, by the same allowance. It allocates
// nothing unless it refuses.
//
// It does not rely on what stages make of a key: an account that is disabled, and a key that is revoked, are refused however
// the caller was identified.
func (d *Directory) Admit(x *exchange.Exchange) *exchange.Problem {
	id := &x.Identity
	if !id.Known() {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if a := d.accounts[id.Account]; a != nil && a.Status != Active {
		return &exchange.Problem{Status: 403, Code: "account_disabled", Title: "The account is disabled.",
			Detail: "The account that the call is for may not be used. Ask who runs this service."}
	}
	k := d.keys[id.Key]
	if k == nil || k.Account != id.Account { // a name that a token gives itself is no key of ours, and another account's is not to be spent
		if k = d.keys[x.Presented]; k == nil {
			return nil
		}
		id.Key = k.ID
	}
	now := d.now()
	if !k.Revoked.IsZero() || !k.Expires.IsZero() && !now.Before(k.Expires) {
		return &exchange.Problem{Status: 401, Code: "invalid_api_key", Title: "The API key is not valid.", Detail: "The API key is revoked or has expired."}
	}
	id.Allows = k.allows
	if from := x.Request.Remote.Addr(); !k.allows.From(from) {
		return notAllowed(fmt.Sprintf("This API key may be used from certain networks alone, and the call came from %s.", from.Unmap().WithZone("")))
	}
	if !k.allows.Route(x.Route) {
		return notAllowed("This API key may not be used at this address: it is restricted to others.")
	}
	if wait := k.take(now); wait > 0 {
		return &exchange.Problem{Status: 429, Code: "key_rate_limited", Title: "The API key is used too often.", Retry: wait,
			Detail: fmt.Sprintf("This API key may be used for %d calls in a %s.", k.allows.Rate.Calls, k.allows.Rate.Unit())}
	}
	return nil
}

func notAllowed(detail string) *exchange.Problem {
	return &exchange.Problem{Status: 403, Code: "key_not_allowed", Title: "The API key may not be used for this call.", Detail: detail}
}

// take counts a call for the key's rate. It returns how long there is to wait when the call comes too early, and counts it
// not then.
//
// Calls are as drops into a bucket that runs dry in Rate.Per (the generic cell rate algorithm): tokens is when it is dry, and
// a call that would have it run beyond now and Rate.Per does not go in.
func (k *keyEntry) take(now time.Time) time.Duration {
	r := k.allows.Rate
	if r.IsZero() {
		return 0
	}
	drop, at := int64(r.Per)/int64(r.Calls), now.UnixNano()
	for {
		dry := k.tokens.Load()
		next := max(dry, at) + drop
		if over := next - at - int64(r.Per); over > 0 {
			return time.Duration(over)
		}
		if k.tokens.CompareAndSwap(dry, next) {
			return 0
		}
	}
}
