package admin

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Configuration is what is in force, without secrets.
type Configuration struct {
	Dir       string     `json:"dir"`
	Digest    string     `json:"digest"`
	Node      string     `json:"node"`
	State     string     `json:"state"`
	Listeners []Listener `json:"listeners"`
	Routes    []Route    `json:"routes"`
	Plugins   []Plugin   `json:"plugins"`
	Upstreams []Upstream `json:"upstreams"`
	Models    []Model    `json:"models"`
}

// Listener is a listener in force.
type Listener struct {
	Name      string   `json:"name"`
	Address   string   `json:"address"`
	Protocols []string `json:"protocols"`
	TLS       bool     `json:"tls"`
}

// Route is a route in force, with its stages in the order in which they run.
type Route struct {
	Name      string   `json:"name"`
	Match     string   `json:"match"`
	Listeners []string `json:"listeners"`
	Stages    []Stage  `json:"stages"`
	Upstream  string   `json:"upstream,omitempty"`
	Models    []string `json:"models,omitempty"`
	Respond   int      `json:"respond,omitempty"` // status of a fixed answer
	Console   bool     `json:"console,omitempty"`
	Place     string   `json:"place"` // file:line
}

// Stage is one stage of a route.
type Stage struct {
	Name    string `json:"name"`
	Phase   string `json:"phase"`
	OnError string `json:"on_error"`
	Place   string `json:"place"`
}

// Plugin is a plugin in force.
type Plugin struct {
	Name    string   `json:"name"`
	Source  string   `json:"source"`
	Version string   `json:"version"`
	Grants  []string `json:"grants"`
}

// Upstream is an upstream in force.
type Upstream struct {
	Name      string   `json:"name"`
	Format    string   `json:"format,omitempty"`
	Protocol  string   `json:"protocol"`
	Balance   string   `json:"balance"`
	Endpoints []string `json:"endpoints"`
}

// Model is a public model in force, and what it costs a unit.
type Model struct {
	Name    string                     `json:"name"`
	Summary string                     `json:"summary"`
	Prices  map[string]exchange.Amount `json:"prices"` // of the last row
	Targets []string                   `json:"targets"`
}

func describe(c *config.Config) Configuration {
	d := Configuration{
		Dir: c.Dir, Digest: c.Digest, Node: c.Gateway.Name, State: c.State.Backend,
		Listeners: []Listener{}, Routes: []Route{}, Plugins: []Plugin{}, Upstreams: []Upstream{}, Models: []Model{},
	}
	for _, l := range c.Listeners {
		v := Listener{Name: l.Name, Address: l.Address, TLS: l.TLS != nil}
		for _, p := range l.Protocols {
			v.Protocols = append(v.Protocols, p.String())
		}
		d.Listeners = append(d.Listeners, v)
	}
	for _, r := range c.Routes {
		v := Route{Name: r.Name, Match: r.Pattern.String(), Console: r.Console, Place: place(r.Range), Stages: []Stage{}}
		for _, l := range r.Listeners {
			v.Listeners = append(v.Listeners, l.Name)
		}
		for _, phase := range r.Chain() {
			for _, s := range phase {
				onError := "deny"
				if s.Allow {
					onError = "allow"
				}
				v.Stages = append(v.Stages, Stage{Name: s.String(), Phase: s.Phase.String(), OnError: onError, Place: place(s.Range)})
			}
		}
		if r.Upstream != nil {
			v.Upstream = r.Upstream.Name
		}
		for _, m := range r.Models {
			v.Models = append(v.Models, m.Name)
		}
		if r.Respond != nil {
			v.Respond = r.Respond.Status
		}
		d.Routes = append(d.Routes, v)
	}
	for _, p := range c.Plugins {
		d.Plugins = append(d.Plugins, Plugin{Name: p.Name, Source: p.Source, Version: p.Manifest.Version, Grants: append([]string{}, p.Grants...)})
	}
	for _, u := range c.Upstreams {
		v := Upstream{Name: u.Name, Format: u.Format, Protocol: u.Protocol, Balance: u.Balance}
		for _, e := range u.Endpoints {
			v.Endpoints = append(v.Endpoints, e.URL.String())
		}
		d.Upstreams = append(d.Upstreams, v)
	}
	for _, m := range c.Models {
		v := Model{Name: m.Name, Summary: m.Summary, Prices: map[string]exchange.Amount{}}
		if n := len(m.Prices); n > 0 {
			for u, set := range m.Prices[n-1].Set {
				if set {
					v.Prices[exchange.Unit(u).String()] = m.Prices[n-1].Per[u]
				}
			}
		}
		for _, t := range m.Targets {
			v.Targets = append(v.Targets, t.Upstream.Name+"/"+t.Model)
		}
		d.Models = append(d.Models, v)
	}
	return d
}

// place is where a block stands, as diagnostics and explain have it.
func place(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }
