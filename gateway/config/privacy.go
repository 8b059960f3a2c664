package config

import (
	"slices"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// privacy has the policy checked against what everything else makes the program do with personal data. What could not be
// read whole is not judged.
func (l *loader) privacy() {
	if l.Diags.HasErrors() {
		return
	}
	c, f := l.config, &l.facts
	f.Access, f.Traces = c.Telemetry.AccessLog, c.Telemetry.TraceEndpoint != ""
	f.Encrypted = !slices.ContainsFunc(c.Listeners, func(li *Listener) bool { return li.TLS == nil })
	f.Stores = append(f.Stores, privacy.Storing{Feature: field.Accounts, Keep: privacy.WithAccount, At: c.State.Range})
	if a := c.Accounts; a != nil {
		f.Stores = append(f.Stores, privacy.Storing{Feature: field.People, Keep: privacy.WithAccount, At: a.Range},
			privacy.Storing{Feature: field.Sessions, Keep: a.Sessions.Absolute, At: a.Range})
		if m := a.Mail.SMTP; m != nil && m.Elsewhere() {
			f.Receivers = append(f.Receivers, privacy.Receiver{Name: m.Host, Post: true, Provider: privacy.Provider{Recipient: m.Recipient}, Encrypted: m.TLS != "none", At: a.Range})
		}
	}
	for i, r := range c.Routes {
		l.way(r, &f.Ways[i])
	}
	for _, p := range c.Plugins {
		for _, g := range p.Grants {
			if feature := field.Feature(g); feature == field.State || feature == field.Cache {
				f.Stores = append(f.Stores, privacy.Storing{Feature: feature, Memory: true, At: p.Range})
			}
		}
	}
	for _, u := range c.Upstreams {
		f.Receivers = append(f.Receivers, privacy.Receiver{Name: u.Name, Provider: u.Provider, At: u.Range,
			Encrypted: !slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.URL.Scheme != "https" })})
	}
	c.Privacy.Check(l.Findings, *f)
}

// way fills in the way of a route's requests.
func (l *loader) way(r *Route, w *privacy.Way) {
	w.Pattern = r.Pattern.String()
	for _, f := range l.opt.Formats {
		op, ok := f.Operation(r.Pattern.Method(), r.Pattern.Path())
		w.Model = w.Model || ok && op.Billed && r.Format == f.Name()
	}
	if w.Model && r.Replay > 0 {
		l.facts.Stores = append(l.facts.Stores, privacy.Storing{Feature: field.Replays, Keep: r.Replay, At: w.ReplayAt})
	}
	for _, m := range r.Models {
		for _, t := range m.Targets {
			if w.Model && !slices.Contains(w.Upstreams, t.Upstream.Name) {
				w.Upstreams = append(w.Upstreams, t.Upstream.Name)
			}
		}
	}
	if r.Upstream != nil {
		w.Upstreams = []string{r.Upstream.Name}
	}
	for _, stages := range r.Chain() {
		for _, s := range stages {
			if s.Hook == nil {
				continue
			}
			step := privacy.Step{
				Stage: s.String(), Plugin: s.Plugin.Name, Reply: s.Phase >= exchange.ResponsePhase, Body: s.Hook.Sees.Body.Mode != 0, Headers: s.Hook.Sees.Headers,
				Attributes: slices.Clone(s.Hook.Sees.Attributes), Grants: s.Plugin.Grants, Asks: s.Plugin.Fetch.Destinations(), At: s.Range,
			}
			for _, argument := range s.Arguments {
				if argument != nil {
					step.Attributes = append(step.Attributes, argument.Uses()...)
				}
			}
			w.Steps = append(w.Steps, step)
		}
	}
}
