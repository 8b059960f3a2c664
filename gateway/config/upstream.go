package config

import (
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/privacy"
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
			Endpoints: l.Endpoints(s), Headers: l.upstreamHeaders(s), Provider: privacy.ReadProvider(s, l.config.Privacy.Names()), Range: s.At,
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
