package config

import (
	"math/big"
	"net/url"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/secret"
)

func (l *loader) upstreamBlocks() {
	kind := l.main.Find("upstream")
	for _, n := range l.upstreams.List {
		s := schema.Open(l, n.Block, kind)
		t, w, r, h, p := s.One("tls"), s.One("timeouts"), s.One("retry"), s.One("health"), s.One("pool")
		u := n.Value
		*u = Upstream{
			Name: n.Name, Format: s.Word("format", l.formats()...), Protocol: s.Word("protocol"), Balance: s.Word("balance"),
			Endpoints: l.endpoints(s), Headers: l.upstreamHeaders(s), Shares: s.Texts("shares"), Range: s.At,
			TLS:      UpstreamTLS{CA: l.File(t, "ca"), Cert: l.File(t, "cert"), Key: l.File(t, "key"), ServerName: t.Text("server_name"), MinVersion: notation.TLSVersion(t)},
			Timeouts: UpstreamTimeouts{Connect: w.Span("connect"), FirstByte: w.Span("first_byte"), Idle: w.Span("idle"), Total: w.Span("total")},
			Retry:    Retry{Attempts: int(r.Count("attempts")), On: r.Words("on"), Budget: r.Ratio("budget"), Backoff: r.Span("backoff")},
			Health: Health{
				Path: h.Text("path"), Interval: h.Span("interval"), Timeout: h.Span("timeout"), Healthy: int(h.Count("healthy")),
				Unhealthy: int(h.Count("unhealthy")), Failures: int(h.Count("failures")), Eject: h.Span("eject"),
			},
			Pool:     UpstreamPool{Connections: int(p.Count("connections")), Idle: int(p.Count("idle")), IdleTimeout: p.Span("idle_timeout")},
			Overload: l.upstreamOverload(s.One("overload")),
		}
		if e := s.Expr("hash_on"); e != nil {
			u.HashOn = l.Compile(e, exchange.RequestPhase, cty.String)
		}
		if hash := u.Balance == "consistent_hash"; hash != s.Set("hash_on") {
			if hash {
				l.Errorf(s.Where("balance"), "Missing hash_on", "consistent_hash needs to know what to hash: add hash_on, for example identity.account.")
			} else {
				l.Errorf(s.Where("hash_on"), "Useless hash_on", "hash_on is for balance = consistent_hash. Set that or remove it.")
			}
		}
		if t.Set("cert") != t.Set("key") {
			l.Errorf(t.At, "Missing certificate", "A client certificate has two parts: give both cert and key.")
		}
		if u.Health.Path != "" && !strings.HasPrefix(u.Health.Path, "/") {
			l.Errorf(h.Where("path"), "Invalid path", "The path of a health check begins with a slash.")
		}
		for _, e := range u.Endpoints {
			if u.Protocol == "http3" && e.URL.Scheme != "https" {
				l.Errorf(s.Where("protocol"), "Missing TLS", "HTTP/3 is always encrypted: the endpoints must be https.")
				break
			}
		}
	}
}

// formats are the words for the provider formats compiled in.
func (l *loader) formats() []string {
	list := []string{}
	for _, f := range l.opt.Formats {
		list = append(list, f.Name())
	}
	return list
}

func (l *loader) endpoints(s *schema.Section) []Endpoint {
	const must = `a list of URLs such as "https://api.example.com", or of { url = "...", weight = 1 }`
	var list []Endpoint
	weight := 0
	entries := s.Entries("endpoints", must)
	for _, e := range entries {
		one := Endpoint{Weight: 1}
		text := ""
		switch t := e.Value.Type(); {
		case schema.Textual(e.Value):
			text = e.Value.AsString()
		case t.IsObjectType() && t.HasAttribute("url") && schema.Textual(e.Value.GetAttr("url")) && len(t.AttributeTypes()) == 1:
			text = e.Value.GetAttr("url").AsString()
		case t.IsObjectType() && t.HasAttribute("url") && schema.Textual(e.Value.GetAttr("url")) && t.HasAttribute("weight") && len(t.AttributeTypes()) == 2:
			text = e.Value.GetAttr("url").AsString()
			r, ok := schema.Exact(e.Value.GetAttr("weight"))
			if !ok || !r.IsInt() || r.Sign() < 0 || r.Cmp(big.NewRat(1000, 1)) > 0 {
				l.Errorf(e.At, "Invalid weight", "The weight of an endpoint is a whole number from 0 to 1000.")
				continue
			}
			one.Weight = int(r.Num().Int64())
		default:
			l.Errorf(e.At, "Invalid endpoint", "endpoints must be %s.", must)
			continue
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || u.Opaque != "" || u.Hostname() == "":
			l.Errorf(e.At, "Invalid endpoint", "This is no URL with scheme and host, such as \"https://api.example.com\".")
		case u.Scheme != "http" && u.Scheme != "https":
			l.Errorf(e.At, "Invalid endpoint", "The scheme of an endpoint is http or https, not %s. What is spoken there is said by protocol.", u.Scheme)
		case u.User != nil:
			l.Errorf(e.At, "Invalid endpoint", "An endpoint holds no user name or password. Put credentials in a secret, and use it in headers.")
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			l.Errorf(e.At, "Invalid endpoint", "An endpoint holds no query or fragment; those are the request's.")
		case slices.ContainsFunc(list, func(o Endpoint) bool { return o.URL.String() == u.String() }):
			l.Errorf(e.At, "Duplicate endpoint", "This endpoint is in the list already; remove one, or give the other a higher weight.")
		default:
			one.URL = u
			list = append(list, one)
			weight += one.Weight
		}
	}
	switch {
	case schema.IsEmpty(s.Expr("endpoints")):
		l.Errorf(s.Where("endpoints"), "No endpoint", "An upstream has at least one endpoint.")
	case len(list) == len(entries) && len(list) > 0 && weight == 0:
		l.Errorf(s.Where("endpoints"), "No endpoint", "All endpoints have weight 0, so none would ever be used.")
	}
	return list
}

func (l *loader) upstreamHeaders(s *schema.Section) []UpstreamHeader {
	var list []UpstreamHeader
	for _, e := range s.Table("headers") {
		name := strings.ToLower(e.Key)
		if !l.FieldName(e, name) {
			continue
		}
		if slices.ContainsFunc(list, func(h UpstreamHeader) bool { return h.Name == name }) {
			l.Errorf(e.At, "Duplicate header", "%s is set already; header names are the same in small and capital letters.", name)
			continue
		}
		value, isSecret := secret.Reveal(e.Value)
		if !notation.FieldValue(value) {
			l.Errorf(e.At, "Invalid header", "The value of %s holds a control character or white space at an end.", name)
			continue
		}
		list = append(list, UpstreamHeader{Name: name, Value: value, Secret: isSecret})
	}
	return list
}
