package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Key is an API key without its secret, which Secret holds once, in the answer that made it.
type Key struct {
	ID       string         `json:"id"`
	Account  string         `json:"account"`
	Name     string         `json:"name"`
	Scopes   []string       `json:"scopes"`
	Models   []string       `json:"models,omitempty"`   // that it may be used for; none: all
	Routes   []string       `json:"routes,omitempty"`   // likewise
	Networks []netip.Prefix `json:"networks,omitempty"` // that calls may come from; none: all
	Cap      exchange.Cap   `json:"cap,omitzero"`       // such as "5.00/day"
	Rate     exchange.Rate  `json:"rate,omitzero"`      // such as "60/minute"
	Spent    Spent          `json:"spent"`
	Created  time.Time      `json:"created"`
	Expires  time.Time      `json:"expires,omitzero"`
	Used     time.Time      `json:"used,omitzero"`
	Rotated  time.Time      `json:"rotated,omitzero"`
	Overlap  time.Time      `json:"overlap,omitzero"` // until when a secret of before the rotation is taken
	Revoked  time.Time      `json:"revoked,omitzero"`
	Secret   string         `json:"secret,omitempty"`
}

// Spent is what the calls of a key cost, in the periods (UTC) that are now.
type Spent struct {
	Day   exchange.Amount `json:"day"`
	Week  exchange.Amount `json:"week"`
	Month exchange.Amount `json:"month"`
	Total exchange.Amount `json:"total"`
	Held  exchange.Amount `json:"held"` // reserved for calls under way
}

// KeyInput is what is chosen of a key. What is absent stays as it is, or, of a new key, is not restricted; what is empty is
// not restricted any more.
type KeyInput struct {
	Name     *string        `json:"name,omitempty"`
	Scopes   *[]string      `json:"scopes,omitempty"`
	Models   *[]string      `json:"models,omitempty"`
	Routes   *[]string      `json:"routes,omitempty"`
	Networks *[]string      `json:"networks,omitempty"`
	Cap      *exchange.Cap  `json:"cap,omitempty"`
	Rate     *exchange.Rate `json:"rate,omitempty"`
	Expires  *string        `json:"expires,omitempty"` // RFC 3339; empty: never
}

// read makes what is asked for of the input and returns what puts it into a request.
func (in *KeyInput) read() (apply func(*account.KeyRequest), err error) {
	var networks []netip.Prefix
	if in.Networks != nil {
		for _, text := range *in.Networks {
			n, err := exchange.ParseNetwork(text)
			if err != nil {
				return nil, refuse(http.StatusBadRequest, "invalid", "%s", err)
			}
			networks = append(networks, n)
		}
	}
	var expires time.Time
	if in.Expires != nil && *in.Expires != "" {
		if expires, err = time.Parse(time.RFC3339, *in.Expires); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "expires is a time such as 2027-01-31T00:00:00Z.")
		}
	}
	return func(r *account.KeyRequest) {
		set(&r.Name, in.Name)
		set(&r.Scopes, in.Scopes)
		set(&r.Models, in.Models)
		set(&r.Routes, in.Routes)
		set(&r.Cap, in.Cap)
		set(&r.Rate, in.Rate)
		if in.Networks != nil {
			r.Networks = networks
		}
		if in.Expires != nil {
			r.Expires = expires
		}
	}, nil
}

// names are the members that are given, for the audit log.
func (in *KeyInput) names() string {
	var list []string
	for name, given := range map[string]bool{
		"name": in.Name != nil, "scopes": in.Scopes != nil, "models": in.Models != nil, "routes": in.Routes != nil, "networks": in.Networks != nil,
		"cap": in.Cap != nil, "rate": in.Rate != nil, "expires": in.Expires != nil,
	} {
		if given {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return cmp.Or(strings.Join(list, "."), "nothing")
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (a *API) viewKey(ctx context.Context, k account.Key) (Key, error) {
	v := Key{
		ID: k.ID, Account: k.Account, Name: k.Name, Scopes: k.Scopes, Models: k.Models, Routes: k.Routes, Networks: k.Networks, Cap: k.Cap, Rate: k.Rate,
		Created: k.Created, Expires: k.Expires, Used: k.Used, Rotated: k.Rotated, Overlap: k.Overlap, Revoked: k.Revoked,
	}
	for per, to := range map[exchange.Period]*exchange.Amount{exchange.Day: &v.Spent.Day, exchange.Week: &v.Spent.Week, exchange.Month: &v.Spent.Month, exchange.Total: &v.Spent.Total} {
		s, err := a.config.Storage.Ledger.Spending(ctx, k.ID, per)
		if err != nil {
			return Key{}, err
		}
		*to, v.Spent.Held = s.Spent, s.Held
	}
	return v, nil
}

func (a *API) keys(r *http.Request) (any, error) {
	list, err := a.config.Storage.Accounts.ListKeys(r.Context(), r.PathValue("account"))
	if err != nil {
		return nil, err
	}
	out := make([]Key, len(list))
	for i, k := range list {
		if out[i], err = a.viewKey(r.Context(), k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *API) createKey(r *http.Request) (any, error) {
	var in KeyInput
	if err := read(r, &in); err != nil {
		return nil, err
	}
	apply, err := in.read()
	if err != nil {
		return nil, err
	}
	var asked account.KeyRequest
	apply(&asked)
	k, secret, err := a.config.Storage.Accounts.CreateKey(r.Context(), r.PathValue("account"), asked)
	if err != nil {
		return nil, err
	}
	return a.withSecret(r.Context(), k, secret)
}

func (a *API) changeKey(r *http.Request) (any, error) {
	var in KeyInput
	if err := read(r, &in); err != nil {
		return nil, err
	}
	apply, err := in.read()
	if err != nil {
		return nil, err
	}
	detail(r, "changed", in.names())
	k, err := a.config.Storage.Accounts.ChangeKey(r.Context(), r.PathValue("account"), r.PathValue("k"), apply)
	if err != nil {
		return nil, err
	}
	return a.viewKey(r.Context(), k)
}

func (a *API) rotateKey(r *http.Request) (any, error) {
	var in struct {
		Overlap string `json:"overlap"` // how long the secret before is taken still, such as "24h"; empty: not at all
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	var overlap time.Duration
	if in.Overlap != "" {
		var err error
		if overlap, err = time.ParseDuration(in.Overlap); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "overlap is a time such as 24h.")
		}
	}
	k, secret, err := a.config.Storage.Accounts.RotateKey(r.Context(), r.PathValue("account"), r.PathValue("k"), overlap)
	if err != nil {
		return nil, err
	}
	return a.withSecret(r.Context(), k, secret)
}

// withSecret is the one answer that shows a key's secret.
func (a *API) withSecret(ctx context.Context, k account.Key, secret string) (any, error) {
	v, err := a.viewKey(ctx, k)
	v.Secret = secret
	return v, err
}

func (a *API) revokeKey(r *http.Request) (any, error) {
	account, id := r.PathValue("account"), r.PathValue("k")
	if _, err := a.config.Storage.Accounts.Key(r.Context(), account, id); err != nil {
		return nil, err
	}
	if err := a.config.Storage.Accounts.RevokeKey(r.Context(), id); err != nil {
		return nil, err
	}
	k, err := a.config.Storage.Accounts.Key(r.Context(), account, id)
	if err != nil {
		return nil, err
	}
	return a.viewKey(r.Context(), k)
}
