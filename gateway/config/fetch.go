package config

import (
	"errors"
	"net/url"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/fetch/origin"
	"github.com/postern-gateway/postern/gateway/schema"
)

// fetchGrant is the capability that a fetch block is for.
const fetchGrant = "fetch"

// fetchBlock reads where a plugin may send requests; the block and the grant need each other. That a grant itself is missing
// or useless is said elsewhere.
func (l *loader) fetchBlock(p *Plugin, s *schema.Section) {
	granted, asks, b := slices.Contains(p.Grants, fetchGrant), p.Manifest.Asks(fetchGrant), s.One("fetch")
	switch {
	case asks && granted && !b.Given:
		l.Errorf(s.Where("grants"), "Missing fetch block", "The plugin may send requests, and nothing says where to. Add a block such as fetch { origins = [\"https://auth.example.com\"] }.")
		return
	case !asks && !granted && b.Given:
		l.Errorf(b.At, "Useless fetch block", "The plugin does not ask for fetch, so it sends no requests. Remove the block.")
		return
	case !granted || !b.Given:
		return
	}
	p.Fetch = PluginFetch{
		Origins: l.origins(b), Timeout: b.Span("timeout"), Concurrent: int(b.Count("concurrent")), Cache: b.Size("cache"), Range: b.At,
	}
	if e := b.Expr("upstreams"); e != nil {
		p.Fetch.Upstreams = schema.ReferAll(l.Findings, &l.upstreams, e)
	}
	if none(b.Expr("origins")) && none(b.Expr("upstreams")) {
		l.Errorf(b.At, "Nowhere to fetch", "The block names neither origins nor upstreams, so every request would be refused. Name one, or take the grant fetch away.")
	}
}

func none(e hcl.Expression) bool { return e == nil || schema.IsEmpty(e) }

func (l *loader) origins(s *schema.Section) []FetchOrigin {
	const must = `a list of URLs such as "https://auth.example.com", or of { url = "...", private = true, ca = "ca.pem" }`
	var list []FetchOrigin
	for _, e := range s.Entries("origins", must) {
		text, o := "", FetchOrigin{}
		switch t := e.Value.Type(); {
		case schema.Textual(e.Value):
			text = e.Value.AsString()
		case t.IsObjectType():
			var wrong bool
			for name := range t.AttributeTypes() {
				v := e.Value.GetAttr(name)
				switch {
				case name == "url" && schema.Textual(v):
					text = v.AsString()
				case name == "private" && v.Type() == cty.Bool && v.IsKnown() && !v.IsNull():
					o.Private = v.True()
				case name == "ca" && schema.Textual(v):
					o.CA = l.Absolute(v.AsString())
				default:
					wrong = true
				}
			}
			if wrong || text == "" {
				l.Errorf(e.At, "Invalid origin", "origins must be %s.", must)
				continue
			}
		default:
			l.Errorf(e.At, "Invalid origin", "origins must be %s.", must)
			continue
		}
		u, err := url.Parse(text)
		if err == nil {
			var at origin.Origin
			at, err = origin.Of(u)
			o.Scheme, o.Host = at.Scheme, at.Host
		} else {
			err = errors.New("this is no URL")
		}
		switch {
		case err != nil:
			l.Errorf(e.At, "Invalid origin", "An origin is a scheme, a host and perhaps a port, such as \"https://auth.example.com\": %s.", err)
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			l.Errorf(e.At, "Invalid origin", "An origin has no path, query or fragment: the plugin chooses those. Write %q.", u.Scheme+"://"+u.Host)
		case o.CA != "" && o.Scheme != "https":
			l.Errorf(e.At, "Useless ca", "ca says which certificates are believed; http has none. Remove it, or write https.")
		case o.CA != "" && !l.Readable(e.At, "ca", o.CA):
		case slices.ContainsFunc(list, func(p FetchOrigin) bool { return p.Scheme == o.Scheme && p.Host == o.Host }):
			l.Errorf(e.At, "Duplicate origin", "%s://%s is in the list already; remove one of them.", o.Scheme, o.Host)
		default:
			list = append(list, o)
		}
	}
	return list
}

// Destinations are the origins and upstreams a plugin may send requests to, as people read them.
func (f *PluginFetch) Destinations() []string {
	var list []string
	for _, o := range f.Origins {
		text := o.Scheme + "://" + o.Host
		if o.Private {
			text += " (also in a private network)"
		}
		list = append(list, text)
	}
	for _, u := range f.Upstreams {
		list = append(list, "upstream."+u.Name)
	}
	return list
}
