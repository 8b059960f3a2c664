package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/route"
)

// Plan describes the configuration. Lines stand for themselves, so that two plans can be compared line by line; positions
// are left out for the same reason, and are explain's to give.
func (e *Explainer) Plan() []string {
	c := e.Config
	var out []string
	say := func(depth int, format string, arguments ...any) {
		out = append(out, strings.Repeat("  ", depth)+fmt.Sprintf(format, arguments...))
	}
	say(0, "gateway %s, state %s, ledger in %s (holds for %s, entries for %s)", c.Gateway.Name, c.State.Backend, c.Ledger.Currency, duration(c.Ledger.HoldTTL), forever(c.Ledger.Retain))
	if c.Admin != nil {
		say(0, "admin on %s, %s", c.Admin.Address, either(c.Admin.ClientCA != "", "TLS with client certificates", "cleartext with a token"))
	}
	if slices.ContainsFunc(c.Routes, func(r *config.Route) bool { return r.Console }) {
		var operators []string
		for _, p := range c.Console.Operators {
			operators = append(operators, p.String())
		}
		say(0, "console %q at %s, operators from %s for %s, terms of use: %s", c.Console.Title, cmp.Or(c.Console.URL, "its listener's address"), none(strings.Join(operators, ", ")), duration(c.Console.Session), either(c.Console.Terms != nil, "published", "none"))
	}
	log := c.Telemetry
	say(0, "log at level %s as %s, access log %s, metrics %s", log.LogLevel, log.LogFormat, either(log.AccessLog, "on", "off"), either(log.Metrics && c.Admin != nil, "on", "off"))
	if log.TraceEndpoint != "" {
		say(0, "traces of %g of requests to %s", log.TraceRatio, log.TraceEndpoint)
	}
	for _, s := range c.Secrets {
		say(0, "secret %s from %s", s.Name, s.Source)
	}
	for _, l := range c.Listeners {
		say(0, "listener %s on %s: %s, %s", l.Name, l.Address, join(l.Protocols), protection(l.TLS))
	}
	for _, p := range c.Plugins {
		say(0, "plugin %s %s from %s, grants: %s", p.Name, p.Manifest.Version, p.Source, none(strings.Join(p.Grants, ", ")))
		say(1, "%s", limits(p))
		for _, h := range p.Manifest.Hooks {
			say(1, "at %s sees %s", h.Phase, sees(h.Sees))
		}
	}
	for _, u := range c.Upstreams {
		say(0, "upstream %s: %s, %s, %d attempts%s", u.Name, u.Protocol, u.Balance, u.Retry.Attempts, either(u.Format != "", ", format "+u.Format, ""))
		for _, e := range u.Endpoints {
			say(1, "%s%s", e.URL, either(u.Balance == "weighted", fmt.Sprint(" weight ", e.Weight), ""))
		}
		for _, h := range u.Headers {
			say(1, "sets %s%s", h.Name, either(h.Secret, " to a secret", ""))
		}
		say(1, "waits %s to connect, %s for the first byte, %s between two", duration(u.Timeouts.Connect), duration(u.Timeouts.FirstByte), duration(u.Timeouts.Idle))
		if u.Retry.Attempts > 1 {
			say(1, "tries again on %s", strings.Join(u.Retry.On, ", "))
		}
		if u.Health.Path != "" {
			say(1, "asks for %s every %s", u.Health.Path, duration(u.Health.Interval))
		}
		if u.Health.Failures > 0 {
			say(1, "leaves an endpoint alone for %s after %d failures in a row", duration(u.Health.Eject), u.Health.Failures)
		}
	}
	for _, m := range c.Models {
		say(0, "model %s: at most %d output tokens", m.Name, m.MaxOutput)
		for _, t := range m.Targets {
			say(1, "%s", target(t))
		}
		for _, line := range priceLines(m, c.Ledger.Currency) {
			say(1, "%s", line)
		}
	}
	var passing []string // where a fault lets requests pass
	for _, r := range bySpecificity(c.Routes) {
		say(0, "route %s: %s on %s%s", r.Name, r.Pattern, listeners(r), either(r.When != nil, ", conditional", ""))
		if r.When != nil {
			say(1, "when %s", r.When.Source())
		}
		say(1, "%s, timeout %s", e.destination(r), forever(r.Timeout))
		for _, stages := range r.Chain() {
			for _, s := range stages {
				say(1, "%s: %s%s", s.Phase, s, either(s.Allow, " (a fault lets the request pass: on_error = allow)", ""))
				if s.Allow {
					passing = append(passing, fmt.Sprintf("%s on route %s", s, r.Name))
				}
			}
		}
	}
	say(0, "a fault lets requests pass (on_error = allow) at: %s", none(strings.Join(passing, "; ")))
	return out
}

// bySpecificity orders routes so that each comes before the less specific ones that match the same requests.
func bySpecificity(routes []*config.Route) []*config.Route {
	done := map[*config.Route]bool{}
	var out []*config.Route
	var visit func(r *config.Route)
	visit = func(r *config.Route) {
		if done[r] {
			return
		}
		done[r] = true
		for _, other := range routes {
			relation := other.Pattern.Compare(r.Pattern)
			if relation == route.MoreSpecific || relation == route.Equivalent && other.When != nil && r.When == nil {
				visit(other)
			}
		}
		out = append(out, r)
	}
	for _, r := range routes {
		visit(r)
	}
	return out
}

// Difference is what has to change from one plan to another, line by line, each changed line below the unindented line it
// belongs to.
func Difference(old, new []string) []string {
	// common[i][j] is the length of the longest common subsequence of old[i:] and new[j:].
	common := make([][]int32, len(old)+1)
	for i := range common {
		common[i] = make([]int32, len(new)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(new) - 1; j >= 0; j-- {
			if old[i] == new[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	head, told := "", true
	show := func(sign, line string) {
		if strings.HasPrefix(line, " ") && !told {
			out = append(out, "  "+head)
		}
		told = true
		out = append(out, sign+" "+line)
	}
	for i, j := 0, 0; i < len(old) || j < len(new); {
		switch {
		case i < len(old) && j < len(new) && old[i] == new[j]:
			if !strings.HasPrefix(new[j], " ") {
				head, told = new[j], false
			}
			i, j = i+1, j+1
		case i < len(old) && (j == len(new) || common[i+1][j] >= common[i][j+1]):
			show("-", old[i])
			i++
		default:
			show("+", new[j])
			j++
		}
	}
	return out
}

func either(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func none(s string) string { return either(s == "", "none", s) }

// duration is d as one writes it: "2m", not "2m0s".
func duration(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func forever(d time.Duration) string { return either(d == 0, "no bound", duration(d)) }

func join(protocols []exchange.Protocol) string {
	var words []string
	for _, p := range protocols {
		words = append(words, p.String())
	}
	return strings.Join(words, " ")
}

func protection(t *config.TLS) string {
	switch {
	case t == nil:
		return "cleartext"
	case t.ClientCA != "":
		return "TLS with client certificates"
	case t.Cert == "":
		return "TLS, self-signed for " + strings.Join(t.SelfSigned, ", ")
	}
	return "TLS"
}

func listeners(r *config.Route) string {
	var names []string
	for _, l := range r.Listeners {
		names = append(names, l.Name)
	}
	return strings.Join(names, ", ")
}

func (e *Explainer) destination(r *config.Route) string {
	switch {
	case r.Console:
		return "to the console"
	case r.Respond != nil:
		return fmt.Sprintf("answers %d itself", r.Respond.Status)
	case r.Upstream != nil:
		return "to upstream " + r.Upstream.Name + keeps(r)
	}
	var names []string
	for _, m := range r.Models {
		names = append(names, m.Name)
	}
	s := fmt.Sprintf("%s %s with models %s", r.Format, r.Operation, strings.Join(names, ", "))
	if e.billed(r) {
		s += fmt.Sprintf(", durability %s, on_disconnect %s, replay %s", r.Durability, r.OnDisconnect, either(r.Replay == 0, "off", duration(r.Replay)))
	}
	return s + keeps(r)
}

// keeps says how long replies are kept for their callers.
func keeps(r *config.Route) string {
	if r.Creations == nil {
		return ""
	}
	return ", creations kept " + duration(r.Creations.Keep)
}

// billed reports whether calls by a route consume what models cost.
func (e *Explainer) billed(r *config.Route) bool {
	for _, f := range e.Formats {
		if op, ok := f.Operation(r.Pattern.Method(), r.Pattern.Path()); ok && f.Name() == r.Format {
			return op.Billed
		}
	}
	return false
}

// priceLines describe what a model costs.
func priceLines(m *config.Model, currency string) []string {
	if len(m.Prices) == 0 {
		return []string{"free: it has no price"}
	}
	var lines []string
	for _, p := range m.Prices {
		since := ""
		if !p.Effective.IsZero() {
			since = " from " + p.Effective.UTC().Format(time.RFC3339)
		}
		lines = append(lines, fmt.Sprintf("price in %s%s: %s", currency, since, prices(p.Per, p.Set)))
		for _, t := range p.Tiers {
			lines = append(lines, fmt.Sprintf("  above %d prompt tokens: %s", t.Above, prices(t.Per, t.Set)))
		}
	}
	return lines
}

func target(t *config.Target) string {
	s := fmt.Sprintf("%s at upstream %s, weight %d", t.Model, t.Upstream.Name, t.Weight)
	if t.When != nil {
		s += ", when " + t.When.Source()
	}
	return s
}

// limits is what a plugin may use, in words.
func limits(p *config.Plugin) string {
	l := &p.Limits
	more := either(l.CPUPerKiB > 0, fmt.Sprintf(" and %s more for each KiB of a body", duration(l.CPUPerKiB)), "")
	return fmt.Sprintf("at most %d MiB, %s of CPU an event%s, %d calls within each other, %d host operations that wait %s in all, %d octets of log; %d instances, waited for %s",
		l.Memory>>20, duration(l.CPU), more, l.Depth, l.Operations, duration(l.Wait), l.Log, p.Instances(), duration(l.Queue))
}

// sees is what reaches a plugin, in words.
func sees(s manifest.Sees) string {
	var parts []string
	if slices.Contains(s.Headers, "*") {
		parts = append(parts, "all headers")
	} else if len(s.Headers) > 0 {
		parts = append(parts, "headers "+strings.Join(s.Headers, ", "))
	}
	if len(s.Attributes) > 0 {
		parts = append(parts, "attributes "+strings.Join(s.Attributes, ", "))
	}
	switch s.Body.Mode {
	case manifest.BodyBuffer:
		parts = append(parts, fmt.Sprintf("the body up to %d octets", s.Body.Max))
	case manifest.BodyStream:
		parts = append(parts, "the body in chunks")
	case manifest.BodyEvents:
		parts = append(parts, "the body event by event")
	}
	if len(parts) == 0 {
		return "nothing of the request"
	}
	return strings.Join(parts, "; ")
}

// prices lists a row: tokens by the million, other units by one.
func prices(per [exchange.UnitCount]exchange.Amount, set [exchange.UnitCount]bool) string {
	var parts []string
	for u := range exchange.UnitCount {
		if !set[u] {
			continue
		}
		amount, of := per[u], " each"
		if u < exchange.Requests {
			if million, ok := per[u].Times(1_000_000); ok {
				amount, of = million, " per million"
			}
		}
		parts = append(parts, fmt.Sprint(u, " ", amount, of))
	}
	return strings.Join(parts, ", ")
}

// fileLine is a position as editors take it.
func fileLine(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }
