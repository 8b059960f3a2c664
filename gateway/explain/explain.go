// Package explain says in words what a configuration does: its main type is Explainer, which tells the way of one request,
// and what a run would open and do.
package explain

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/route"
)

// Explainer tells of one configuration.
type Explainer struct {
	Config  *config.Config
	Formats []provider.Format // the provider formats compiled in
}

// Request is a request to be explained.
type Request struct {
	Method string
	URL    string   // or only a path
	Header []string // fields as "Name: value"
}

// Request tells the way of one request: which route takes it and why, and what each stage sees and may do. Nothing is
// sent and no plugin runs.
func (e *Explainer) Request(q Request) (string, error) {
	var b strings.Builder
	err := e.explain(&b, q)
	return b.String(), err
}

func (e *Explainer) explain(b *strings.Builder, q Request) error {
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" && !strings.HasPrefix(q.URL, "/") {
		return fmt.Errorf("%q is neither a URL nor a path", q.URL)
	}
	x := &exchange.Exchange{Request: exchange.Request{
		Protocol: exchange.HTTP1, Method: q.Method, Scheme: u.Scheme, Authority: strings.ToLower(u.Host), Query: u.RawQuery,
		Remote: netip.MustParseAddrPort("127.0.0.1:40000"), Local: netip.MustParseAddrPort("127.0.0.1:0"),
	}}
	for _, field := range q.Header {
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			return fmt.Errorf("%q is no header field: write NAME: VALUE", field)
		}
		x.Request.Header.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
	}
	raw := u.EscapedPath()
	if raw == "" {
		raw = "/"
	}
	if x.Request.Path, err = route.Canonical(raw); err != nil {
		fmt.Fprintf(b, "400 Bad Request: the path is refused: %s.\n", err)
		return nil
	}
	if x.Request.Path != raw {
		fmt.Fprintf(b, "The path is taken as %s.\n", x.Request.Path)
	}
	reached := 0
	for _, l := range e.Config.Listeners {
		if u.Host != "" && !answers(l, u) {
			continue
		}
		if reached++; reached > 1 {
			b.WriteByte('\n')
		}
		x.Listener = l.Name
		x.Request.Scheme = either(l.TLS != nil, "https", "http")
		fmt.Fprintf(b, "listener %s (%s), %s, %s\n", l.Name, l.Address, protection(l.TLS), fileLine(l.Range))
		e.onListener(b, l, x)
	}
	if reached == 0 {
		fmt.Fprintf(b, "No listener answers at %s://%s. There are:\n", u.Scheme, u.Host)
		for _, l := range e.Config.Listeners {
			fmt.Fprintf(b, "  listener %s (%s), %s\n", l.Name, l.Address, protection(l.TLS))
		}
	}
	return nil
}

// answers reports whether a URL leads to the listener: by scheme and port; names are the network's affair.
func answers(l *config.Listener, u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = either(u.Scheme == "https", "443", "80")
	}
	_, own, _ := net.SplitHostPort(l.Address)
	return port == own && (u.Scheme == "https") == (l.TLS != nil)
}

// onListener chooses the route as the server does, and keeps what it saw on the way.
func (e *Explainer) onListener(b *strings.Builder, l *config.Listener, x *exchange.Exchange) {
	var entries []route.Entry[*config.Route]
	for _, r := range e.Config.RoutesOf(l.Name) {
		entries = append(entries, route.Entry[*config.Route]{Pattern: r.Pattern, Value: r})
	}
	var tried []string
	failed := false // a condition that fails ends the search, as it does in the server
	accept := func(r *config.Route) bool {
		if r.When == nil {
			return true
		}
		x.Route = r.Name
		ok, err := r.When.Bool(x)
		switch {
		case err != nil:
			tried = append(tried, fmt.Sprintf("500 Internal Server Error: route.%s matches, and its condition fails: %s", r.Name, err))
			failed = true
		case !ok:
			tried = append(tried, fmt.Sprintf("  route.%s matches, but not when %s", r.Name, r.When.Source()))
		}
		return ok || failed
	}
	table := route.NewTable(entries)
	var params route.Params
	r, ok := table.Match(x.Request.Method, x.Request.Authority, x.Request.Path, &params, accept)
	for _, line := range tried {
		fmt.Fprintln(b, line)
	}
	if failed {
		return
	}
	if !ok {
		if allowed := table.Allowed(x.Request.Authority, x.Request.Path, accept); len(allowed) > 0 {
			fmt.Fprintf(b, "405 Method Not Allowed: the path is known, for %s.\n", strings.Join(allowed, ", "))
		} else {
			fmt.Fprintln(b, "404 Not Found: no route matches.")
		}
		return
	}
	fmt.Fprintf(b, "route.%s: %s, %s\n", r.Name, r.Pattern, fileLine(r.Range))
	fmt.Fprintln(b, "  chosen as the most specific route that matches"+either(r.When != nil, ", and its condition holds", ""))
	for _, name := range r.Pattern.Names() {
		fmt.Fprintf(b, "  %s = %q\n", name, params.Get(name))
	}
	chain(b, r)
	e.whereto(b, r)
}

// chain prints the stages as they run.
func chain(b *strings.Builder, r *config.Route) {
	for phase, stages := range r.Chain() {
		if len(stages) == 0 {
			continue
		}
		p := exchange.Phase(phase)
		fmt.Fprintf(b, "\n%s%s\n", p, either(p == exchange.Authenticate && len(stages) > 1, " (alternatives: the first identity wins)", ""))
		for _, s := range stages {
			fmt.Fprintf(b, "  %s, %s\n", s, fileLine(s.Range))
			if s.When != nil {
				fmt.Fprintf(b, "    when %s\n", s.When.Source())
			}
			if s.Require != nil {
				fmt.Fprintf(b, "    %s, or else %d: %s\n", s.Require.Condition.Source(), s.Require.Status, s.Require.Message)
				continue
			}
			fmt.Fprintf(b, "    sees %s\n", sees(s.Hook.Sees))
			slots := s.Plugin.Manifest.PerRequest(s.Hook)
			for i, program := range s.Arguments {
				if program != nil && program.Range().Filename == s.Range.Filename { // not a default of the manifest
					fmt.Fprintf(b, "    gets %s = %s\n", slots[i].Name, program.Source())
				}
			}
			fmt.Fprintf(b, "    may use: %s\n", none(strings.Join(s.Plugin.Grants, ", ")))
			fmt.Fprintf(b, "    uses %s\n", limits(s.Plugin))
			if f := s.Plugin.Fetch; len(f.Origins)+len(f.Upstreams) > 0 {
				fmt.Fprintf(b, "    may ask: %s\n", strings.Join(f.Destinations(), ", "))
			}
			fmt.Fprintf(b, "    within %s; a fault %s\n", duration(s.Timeout), either(s.Allow, "lets the request pass (on_error = allow)", "denies the request"))
		}
	}
}

// whereto prints where the request goes, and what may be lost.
func (e *Explainer) whereto(b *strings.Builder, r *config.Route) {
	fmt.Fprintf(b, "\n%s, timeout %s\n", e.destination(r), forever(r.Timeout))
	if len(r.Models) > 0 && !e.billed(r) {
		b.WriteString("  answered from the configuration: no upstream is called and nothing is charged\n")
		return
	}
	switch {
	case r.Upstream != nil:
		for _, e := range r.Upstream.Endpoints {
			fmt.Fprintf(b, "  %s\n", e.URL)
		}
	case r.Models != nil:
		for _, m := range r.Models {
			fmt.Fprintf(b, "  model %s, %s\n", m.Name, fileLine(m.Range))
			for _, t := range m.Targets {
				fmt.Fprintf(b, "    %s\n", target(t))
			}
			for _, line := range priceLines(m, e.Config.Ledger.Currency) {
				fmt.Fprintf(b, "    %s\n", line)
			}
			fmt.Fprintf(b, "    a call that does not say how much it wants is held for %d output tokens\n", m.MaxOutput)
		}
		if r.Durability == "batch" {
			fmt.Fprintln(b, "  durability = batch: a power cut can lose what was charged in the last 50 ms")
		} else {
			fmt.Fprintln(b, "  durability = sync: the intent is on disk before the upstream is called; a power cut loses no charge")
		}
		fmt.Fprintf(b, "  on_disconnect = %s: %s\n", r.OnDisconnect, map[string]string{
			"bill_delivered": "a client that leaves pays for what it was sent",
			"drain":          "a client that leaves pays for the whole answer, which is read to its end",
			"void":           "a client that leaves pays nothing",
		}[r.OnDisconnect])
	}
}
