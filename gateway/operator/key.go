package operator

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

type keyCommand struct {
	Create keyCreate `cmd:"" help:"Make a key and print it: it can not be shown again."`
	List   keyList   `cmd:"" help:"List an account's keys, with what they are restricted to and what they spent."`
	Change keyChange `cmd:"" help:"Change a key's name or restrictions; from the next call on."`
	Rotate keyRotate `cmd:"" help:"Give a key a new secret and print it: it can not be shown again."`
	Revoke keyRevoke `cmd:"" help:"Revoke a key at once."`
}

// restrictions are what a key can be held to.
type restrictions struct {
	Model   []string      `help:"A model it may be used for; repeatable, by default all." placeholder:"NAME"`
	Route   []string      `help:"A route it may be used for; repeatable, by default all." placeholder:"NAME"`
	Network []string      `help:"A network or an address that its calls may come from; repeatable, by default all." placeholder:"CIDR"`
	Cap     string        `help:"What its calls may cost together: 5/day, 20/week, 50/month (UTC), or 100/total." placeholder:"AMOUNT/PERIOD"`
	Rate    string        `help:"How often it may be used: 10/second, 60/minute or 1000/hour." placeholder:"CALLS/TIME"`
	Expires time.Duration `help:"How long it lives from now on; by default until it is revoked."`
}

// input reads them; what is not given is nil.
func (r *restrictions) input() (in admin.KeyInput, err error) {
	if r.Cap != "" {
		in.Cap = new(exchange.Cap)
		if *in.Cap, err = exchange.ParseCap(r.Cap); err != nil {
			return in, err
		}
	}
	if r.Rate != "" {
		in.Rate = new(exchange.Rate)
		if *in.Rate, err = exchange.ParseRate(r.Rate); err != nil {
			return in, err
		}
	}
	if r.Expires < 0 {
		return in, fmt.Errorf("a key can not live for %s", r.Expires)
	}
	if r.Expires > 0 {
		in.Expires = new(time.Now().Add(r.Expires).UTC().Format(time.RFC3339))
	}
	for to, list := range map[**[]string][]string{&in.Models: r.Model, &in.Routes: r.Route, &in.Networks: r.Network} {
		if len(list) > 0 {
			*to = &list
		}
	}
	return in, nil
}

type keyCreate struct {
	place
	Account string   `arg:"" help:"The account's id."`
	Name    string   `help:"What the key is called." default:"default"`
	Scope   []string `help:"What the key may do; repeatable." default:"models:call"`
	restrictions
	JSON bool `help:"Print JSON."`
}

// Run makes a key and prints its secret.
func (c *keyCreate) Run(s *Shell) error {
	in, err := c.input()
	if err != nil {
		return err
	}
	in.Name, in.Scopes = &c.Name, &c.Scope
	return s.key(c.place, http.MethodPost, c.Account, "", in, c.JSON, func(k admin.Key) string { return k.Secret })
}

// key makes a call about a key and prints what comes of it.
func (s *Shell) key(p place, method, account, rest string, in any, asJSON bool, say func(admin.Key) string) error {
	return s.with(p, false, func(o *admin.Client) error {
		var k admin.Key
		if err := o.Call(s.Context, method, "/v1/accounts/"+url.PathEscape(account)+"/keys"+rest, in, &k); err != nil {
			return err
		}
		return s.print(asJSON, k, func(w *tabwriter.Writer) { fmt.Fprintln(w, say(k)) })
	})
}

// ofAccount names one key.
type ofAccount struct {
	Account string `arg:"" help:"The account's id."`
	Key     string `arg:"" help:"The key's id, as list shows it."`
	JSON    bool   `help:"Print JSON."`
}

func (k *ofAccount) path() string { return "/" + url.PathEscape(k.Key) }

type keyChange struct {
	place
	ofAccount
	Name  string   `help:"What the key is called from now on."`
	Scope []string `help:"What the key may do; repeatable, in the place of what it could."`
	restrictions
	Clear []string `help:"What it is not restricted in any more: models, routes, networks, cap, rate, expires." enum:"models,routes,networks,cap,rate,expires" placeholder:"WHAT"`
}

// Run changes a key.
func (c *keyChange) Run(s *Shell) error {
	in, err := c.input()
	if err != nil {
		return err
	}
	if c.Name != "" {
		in.Name = &c.Name
	}
	if len(c.Scope) > 0 {
		in.Scopes = &c.Scope
	}
	for _, what := range c.Clear {
		both := false
		switch what {
		case "models":
			both, in.Models = in.Models != nil, new([]string{})
		case "routes":
			both, in.Routes = in.Routes != nil, new([]string{})
		case "networks":
			both, in.Networks = in.Networks != nil, new([]string{})
		case "cap":
			both, in.Cap = in.Cap != nil, new(exchange.Cap)
		case "rate":
			both, in.Rate = in.Rate != nil, new(exchange.Rate)
		case "expires":
			both, in.Expires = in.Expires != nil, new("")
		}
		if both {
			return fmt.Errorf("the key's %s can be set or cleared, not both", what)
		}
	}
	if in == (admin.KeyInput{}) {
		return fmt.Errorf("nothing is to be changed: see postern account key change --help")
	}
	return s.key(c.place, http.MethodPatch, c.Account, c.path(), in, c.JSON, func(k admin.Key) string { return "changed " + k.ID })
}

type keyRotate struct {
	place
	ofAccount
	Overlap time.Duration `help:"How long the secret before is taken still, up to 720h; by default not at all."`
}

// Run gives a key a new secret and prints it.
func (c *keyRotate) Run(s *Shell) error {
	in := map[string]string{"overlap": c.Overlap.String()}
	return s.key(c.place, http.MethodPost, c.Account, c.path()+"/rotate", in, c.JSON, func(k admin.Key) string { return k.Secret })
}

type keyRevoke struct {
	place
	ofAccount
}

// Run revokes a key.
func (c *keyRevoke) Run(s *Shell) error {
	return s.key(c.place, http.MethodDelete, c.Account, c.path(), nil, c.JSON, func(k admin.Key) string { return "revoked " + k.ID })
}

type keyList struct {
	place
	Account string `arg:"" help:"The account's id."`
	JSON    bool   `help:"Print JSON."`
}

// Run lists an account's keys.
func (c *keyList) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var list []admin.Key
		if err := o.Call(s.Context, http.MethodGet, "/v1/accounts/"+url.PathEscape(c.Account)+"/keys", nil, &list); err != nil {
			return err
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ID\tNAME\tSCOPES\tMODELS\tROUTES\tNETWORKS\tCAP\tRATE\tMONTH\tTOTAL\tCREATED\tUSED\tEXPIRES\tREVOKED")
			for _, k := range list {
				networks := make([]string, len(k.Networks))
				for i, n := range k.Networks {
					networks[i] = network(n)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, strings.Join(k.Scopes, ","), restricted(k.Models), restricted(k.Routes), restricted(networks),
					cmp.Or(k.Cap.String(), "-"), cmp.Or(k.Rate.String(), "-"), k.Spent.Month, k.Spent.Total, date(k.Created), date(k.Used), date(k.Expires), date(k.Revoked))
			}
		})
	})
}

// restricted is a list of what is allowed, for people.
func restricted(names []string) string { return cmp.Or(strings.Join(names, ","), "all") }

// network is a network as people write it: one address is written alone.
func network(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
