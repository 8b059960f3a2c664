// Package notation is how values are written that are more than a word or a number: money, addresses, patterns,
// expressions, header fields, and paths of files. Its main type is Reader, which reads them from sections and reports what
// is wrong with them.
package notation

import (
	"crypto/tls"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/expr"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/variable"
)

// Reader reads values and takes what is wrong with them. It is used by one goroutine.
type Reader struct {
	*variable.Names // evaluates, and collects the diagnostics
}

// Amount reads money, divided by per; ok is false when there is none or it has been reported.
func (r *Reader) Amount(s *schema.Section, name string, per int64) (exchange.Amount, bool) {
	v, ok := s.Any(name)
	if !ok {
		return exchange.Amount{}, false
	}
	at := s.Where(name)
	exact, ok := schema.Exact(v)
	switch {
	case !ok:
		r.Errorf(at, "Invalid amount", "%s must be an amount of money, such as 0.15 or \"0.15\".", name)
		return exchange.Amount{}, false
	case exact.Sign() < 0:
		r.Errorf(at, "Negative amount", "%s must not be negative.", name)
		return exchange.Amount{}, false
	}
	exact.Quo(exact, big.NewRat(per, 1))
	text := exact.FloatString(12)
	if back, ok := new(big.Rat).SetString(text); !ok || back.Cmp(exact) != 0 {
		r.Errorf(at, "Inexact amount", "One unit would cost %s, which has more than 12 digits after the point. Amounts are never rounded.", exact.FloatString(20))
		return exchange.Amount{}, false
	}
	a, err := exchange.ParseAmount(text)
	if err != nil {
		r.Errorf(at, "Amount too large", "%s has more than 15 digits before the point.", name)
		return exchange.Amount{}, false
	}
	return a, true
}

// Address checks the host:port of a section's address. It is false when that is missing or wrong, which has been reported.
func (r *Reader) Address(s *schema.Section, address string) bool {
	if address == "" {
		return false // reported, being required
	}
	host, port, err := net.SplitHostPort(address)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numErr != nil || port != strconv.FormatUint(n, 10) {
		r.Errorf(s.Where("address"), "Invalid address", "address must be host:port with a port from 0 to 65535, such as \":8443\" or \"127.0.0.1:8443\".")
		return false
	}
	if _, err := netip.ParseAddr(host); host != "" && host != "localhost" && err != nil {
		r.Errorf(s.Where("address"), "Invalid address", "The host must be an IP address of this machine, localhost, or nothing for all addresses.")
		return false
	}
	return true
}

// Pattern reads match; nil when it is missing or wrong. It points into the text at what is wrong.
func (r *Reader) Pattern(s *schema.Section) *route.Pattern {
	text := s.Text("match")
	if text == "" {
		return nil
	}
	p, err := route.ParsePattern(text)
	if err == nil {
		return p
	}
	at := s.Where("match")
	var bad *route.ParseError
	// The offset holds in the file only where the text was written out on one line without escapes.
	if errors.As(err, &bad) && string(at.SliceBytes(r.Sources[at.Filename])) == `"`+text+`"` && bad.Offset <= len(text) {
		skip := 1 + bad.Offset
		at.Start.Byte, at.Start.Column = at.Start.Byte+skip, at.Start.Column+1+len([]rune(text[:bad.Offset]))
		at.End.Byte, at.End.Column = at.End.Byte-1, at.End.Column-1
	}
	r.Errorf(at, "Invalid pattern", "This is no pattern: %s.", err)
	return nil
}

// Compile type-checks a request-time expression and notes what it uses at load. It returns nil when it is wrong.
func (r *Reader) Compile(e hcl.Expression, phase exchange.Phase, want cty.Type) *expr.Program {
	for _, t := range e.Variables() {
		if len(t) > 1 {
			r.Used[t.RootName()+"."+schema.Step(t[1])] = true
		}
	}
	p, diags := expr.Compile(e, expr.Scope{Phase: phase, Values: r.Context.Variables, Sources: r.Sources}, want)
	r.Add(diags)
	if diags.HasErrors() {
		return nil
	}
	return p
}

// TLSVersion reads min_version as crypto/tls has it.
func TLSVersion(s *schema.Section) uint16 {
	if s.Word("min_version") == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}
