package config

import (
	"net"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/schema"
)

func (l *loader) listenerBlocks() {
	kind := l.main.Find("listener")
	for _, n := range l.listeners.List {
		s := schema.Open(l, n.Block, kind)
		limits, timeouts, quic := s.One("limits"), s.One("timeouts"), s.One("quic")
		*n.Value = Listener{
			Name: n.Name, Address: s.Text("address"), Drain: s.Span("drain"), Range: s.At,
			Limits: Limits{
				Header: limits.Size("header"), Headers: int(limits.Count("headers")), Body: limits.Size("body"),
				Requests: int(limits.Count("requests")), Connections: int(limits.Count("connections")), Streams: int(limits.Count("streams")), Control: int(limits.Count("control")),
			},
			Timeouts: ListenerTimeouts{Header: timeouts.Span("header"), Body: timeouts.Span("body"), Idle: timeouts.Span("idle"), Write: timeouts.Span("write")},
			QUIC:     QUIC{Window: quic.Size("window"), ConnectionWindow: quic.Size("connection_window"), EarlyData: quic.Flag("early_data")},
		}
		for _, word := range s.Words("protocols") {
			n.Value.Protocols = append(n.Value.Protocols, map[string]exchange.Protocol{"http1": exchange.HTTP1, "http2": exchange.HTTP2, "http3": exchange.HTTP3}[word])
		}
		if schema.IsEmpty(s.Expr("protocols")) {
			l.Errorf(s.Where("protocols"), "No protocol", "A listener speaks at least one protocol: http1, http2 or http3.")
		}
		if t := s.One("tls"); t.Given {
			n.Value.TLS = l.tls(t)
		} else if n.Value.Speaks(exchange.HTTP3) {
			l.Errorf(s.Where("protocols"), "Missing TLS", "HTTP/3 is always encrypted: add a tls block or remove http3.")
		}
		if quic.Given && !n.Value.Speaks(exchange.HTTP3) {
			l.Errorf(quic.At, "No HTTP/3", "The block quic is about HTTP/3: add http3 to protocols, or remove the block.")
		}
		if n.Value.QUIC.EarlyData && n.Value.TLS != nil && n.Value.TLS.ClientCA != "" {
			l.Errorf(quic.Where("early_data"), "Early data with client certificates", "What comes before the handshake is over comes before the client has shown its certificate: remove early_data or client_ca.")
		}
		l.Address(s, n.Value.Address)
	}
	l.clashes()
}

func (l *loader) tls(s *schema.Section) *TLS {
	t := &TLS{Cert: l.File(s, "cert"), Key: l.File(s, "key"), SelfSigned: s.Texts("self_signed"), ClientCA: l.File(s, "client_ca"), MinVersion: notation.TLSVersion(s), Range: s.At}
	files, own := s.Set("cert") || s.Set("key"), s.Set("self_signed")
	switch {
	case files && own:
		l.Errorf(s.Where("self_signed"), "Two certificates", "A listener has one certificate: give cert and key, or self_signed.")
	case !files && !own:
		l.Errorf(s.At, "Missing certificate", "Give cert and key, or for development self_signed = [\"localhost\"].")
	case files && !(s.Set("cert") && s.Set("key")):
		l.Errorf(s.At, "Missing certificate", "cert and key belong together: give both.")
	case schema.IsEmpty(s.Expr("self_signed")):
		l.Errorf(s.Where("self_signed"), "Missing certificate", "self_signed lists at least one name or address, such as \"localhost\".")
	}
	return t
}

// clashes finds listeners that want the same address. TCP and UDP are apart, so http3 may have a listener of its own.
func (l *loader) clashes() {
	type socket struct{ network, host, port, owner string }
	var taken []socket
	claim := func(owner, address string, network string) (string, bool) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "0" {
			return "", true
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		for _, t := range taken {
			if t.network == network && t.port == port && (t.host == host || wildcard(t.host) || wildcard(host)) {
				return t.owner, false
			}
		}
		taken = append(taken, socket{network, host, port, owner})
		return "", true
	}
	if a := l.config.Admin; a != nil {
		claim("the admin listener", a.Address, "tcp")
	}
	for _, n := range l.listeners.List {
		for _, network := range []string{"tcp", "udp"} {
			if uses := n.Value.Speaks(exchange.HTTP3); network == "udp" && !uses || network == "tcp" && uses && len(n.Value.Protocols) == 1 {
				continue
			}
			if owner, ok := claim("listener."+n.Name, n.Value.Address, network); !ok {
				l.Errorf(n.Value.Range, "Address in use", "%s listens on %s already (%s). Choose another port.", owner, n.Value.Address, network)
			}
		}
	}
}

func wildcard(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
