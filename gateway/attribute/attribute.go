// Package attribute is the catalogue of what can be read of an exchange: its main type is Attribute. Expressions read
// attributes by name, a plugin's manifest lists those the plugin gets to see, and frames carry them.
package attribute

import (
	"crypto/tls"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Attribute is one name of the catalogue: what expressions may read of an exchange, and what a manifest's
// sees.attributes may list. It does not change.
type Attribute struct {
	Name    string
	Type    cty.Type       // of the value in expressions
	Since   exchange.Phase // the earliest phase at which it is known
	Summary string
	Read    Reader // how it is read; empty for a group
}

// Reader reads an attribute of an exchange. Exactly one function is set; none of them allocates, changes the exchange or
// fails.
type Reader struct {
	Text    func(x *exchange.Exchange) string
	Number  func(x *exchange.Exchange) int64
	Truth   func(x *exchange.Exchange) bool
	Address func(x *exchange.Exchange) netip.Addr // its text, empty when it is not valid
	Texts   func(x *exchange.Exchange) []string
	Usage   func(x *exchange.Exchange) *exchange.Usage // a count for each unit
	Targets func(x *exchange.Exchange) []exchange.Target
	Target  func(x *exchange.Exchange) *exchange.Target // nil when there is none
}

// TargetType is the type of a target; its members are encoded in the order of their names.
func TargetType() cty.Type {
	return cty.Object(map[string]cty.Type{"healthy": cty.Bool, "model": cty.String, "upstream": cty.String, "weight": cty.Number})
}

// All lists the catalogue in the order of the documentation. Besides these there are the open groups
// request.headers["name"], response.headers["name"] and attribute["plugin.name"], which Lookup knows.
func All() []*Attribute {
	const (
		always   = exchange.Authenticate
		identity = exchange.Authorize
		called   = exchange.Admit
		answered = exchange.ResponsePhase
	)
	text := func(name string, since exchange.Phase, summary string, read func(x *exchange.Exchange) string) *Attribute {
		return &Attribute{Name: name, Type: cty.String, Since: since, Summary: summary, Read: Reader{Text: read}}
	}
	number := func(name string, since exchange.Phase, summary string, read func(x *exchange.Exchange) int64) *Attribute {
		return &Attribute{Name: name, Type: cty.Number, Since: since, Summary: summary, Read: Reader{Number: read}}
	}
	truth := func(name string, since exchange.Phase, summary string, read func(x *exchange.Exchange) bool) *Attribute {
		return &Attribute{Name: name, Type: cty.Bool, Since: since, Summary: summary, Read: Reader{Truth: read}}
	}
	units := func(name string, since exchange.Phase, summary string, read func(x *exchange.Exchange) *exchange.Usage) []*Attribute {
		list := []*Attribute{{Name: name, Type: cty.List(cty.Number), Since: since, Summary: summary, Read: Reader{Usage: read}}}
		for u := range exchange.UnitCount {
			list = append(list, number(name+"."+u.String(), since, "The "+u.String()+" of it.", func(x *exchange.Exchange) int64 { return read(x).Units[u] }))
		}
		return append(list,
			number(name+".prompt", since, "All input tokens of it.", func(x *exchange.Exchange) int64 { return read(x).Prompt() }),
			number(name+".completion", since, "All output tokens of it.", func(x *exchange.Exchange) int64 { return read(x).Completion() }))
	}
	return slices.Concat([]*Attribute{
		text("request.id", always, "The gateway's own id of the exchange.", func(x *exchange.Exchange) string { return x.ID }),
		text("request.method", always, "The method, as sent.", func(x *exchange.Exchange) string { return x.Request.Method }),
		text("request.scheme", always, `"http" or "https", by the listener.`, func(x *exchange.Exchange) string { return x.Request.Scheme }),
		text("request.host", always, "The host without port, in lower case.", func(x *exchange.Exchange) string { return bareHost(x.Request.Authority) }),
		text("request.path", always, "The canonical path.", func(x *exchange.Exchange) string { return x.Request.Path }),
		text("request.query", always, `The query as sent, without "?".`, func(x *exchange.Exchange) string { return x.Request.Query }),
		text("request.protocol", always, `"http1", "http2" or "http3".`, func(x *exchange.Exchange) string { return x.Request.Protocol.String() }),
		{Name: "request.remote", Type: cty.String, Since: always, Summary: "The client's address, without port.", Read: Reader{Address: func(x *exchange.Exchange) netip.Addr { return x.Request.Remote.Addr().Unmap() }}},
		text("request.user_agent", always, "The header user-agent.", func(x *exchange.Exchange) string { return x.Request.Header.Get("user-agent") }),
		number("request.length", always, "Octets of the body, or -1 when that is not known beforehand.", func(x *exchange.Exchange) int64 { return x.Request.Length }),
		text("request.tls.version", always, `"1.2" or "1.3"; empty on a cleartext listener.`, tlsVersion),
		text("request.tls.peer", always, "The verified client certificate's common name, without one its first DNS name; empty without certificate.", tlsPeer),
		text("request.upgrade", always, `The protocol the client wants to switch to, such as "websocket", or empty.`, func(x *exchange.Exchange) string { return x.Request.Upgrade }),
		text("route.name", always, "The route's name.", func(x *exchange.Exchange) string { return x.Route }),
		text("listener.name", always, "The listener's name.", func(x *exchange.Exchange) string { return x.Listener }),
		number("fuel", always, "The CPU plugins have used for this exchange so far, in units of about one instruction.", func(x *exchange.Exchange) int64 { return x.Fuel }),
		text("identity.account", identity, "Who is charged; empty when nobody was identified.", func(x *exchange.Exchange) string { return x.Identity.Account }),
		text("identity.key", identity, "The API key's id, never the key.", func(x *exchange.Exchange) string { return x.Identity.Key }),
		text("identity.name", identity, "The API key's name.", func(x *exchange.Exchange) string { return x.Identity.Name }),
		{Name: "identity.scopes", Type: cty.List(cty.String), Since: identity, Summary: "What the API key may do.", Read: Reader{Texts: func(x *exchange.Exchange) []string { return x.Identity.Scopes }}},
		text("model", called, "The public model name the client sent; empty on routes without models.", func(x *exchange.Exchange) string { return x.Call.Model }),
		text("call.format", called, `The wire format the client speaks, such as "openai".`, func(x *exchange.Exchange) string { return x.Call.Format }),
		text("call.operation", called, `What is asked, such as "chat".`, func(x *exchange.Exchange) string { return x.Call.Operation }),
		truth("call.stream", called, "Whether the client asked for server-sent events.", func(x *exchange.Exchange) bool { return x.Call.Stream }),
	}, units("usage.max", called, "The most this call can use: a count for each unit.", func(x *exchange.Exchange) *exchange.Usage { return &x.Call.Max }),
		[]*Attribute{
			text("hold", called, "The ledger's hold that pays for this call; empty without one.", func(x *exchange.Exchange) string { return x.Hold }),
			{Name: "targets", Type: cty.List(TargetType()), Since: exchange.Route, Summary: "The targets that can serve the model, in the order in which they are to be tried.", Read: Reader{Targets: func(x *exchange.Exchange) []exchange.Target { return x.Call.Targets }}},
			{Name: "target", Type: TargetType(), Since: exchange.RequestPhase, Summary: "The target in use.", Read: Reader{Target: chosen}},
			text("upstream", answered, "The upstream that answered.", func(x *exchange.Exchange) string { return x.Upstream }),
			number("response.status", answered, "The status code.", func(x *exchange.Exchange) int64 { return int64(x.Response.Status) }),
			number("response.length", answered, "Octets of the body, or -1 when that is not known beforehand.", func(x *exchange.Exchange) int64 { return x.Response.Length }),
		}, units("response.usage", answered, "What the call used so far: a count for each unit.", func(x *exchange.Exchange) *exchange.Usage { return &x.Usage }),
		[]*Attribute{
			truth("response.usage.estimated", answered, "Whether the gateway counted it itself.", func(x *exchange.Exchange) bool { return x.Usage.Estimated }),
			text("response.usage.model", answered, "The public model name it is charged for.", func(x *exchange.Exchange) string { return x.Call.Model }),
			text("response.usage.upstream", answered, "The upstream that was used.", func(x *exchange.Exchange) string { return x.Upstream }),
		})
}

// chosen is Call.Chosen without the copy.
func chosen(x *exchange.Exchange) *exchange.Target {
	if i := x.Call.Target; i >= 0 && i < len(x.Call.Targets) {
		return &x.Call.Targets[i]
	}
	return nil
}

func tlsVersion(x *exchange.Exchange) string {
	if x.Request.TLS == nil {
		return ""
	}
	switch x.Request.TLS.Version {
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return ""
}

func tlsPeer(x *exchange.Exchange) string {
	if x.Request.TLS == nil || x.Request.TLS.Peer == nil {
		return ""
	}
	peer := x.Request.TLS.Peer
	if peer.Subject.CommonName == "" && len(peer.DNSNames) > 0 {
		return peer.DNSNames[0]
	}
	return peer.Subject.CommonName
}

// bareHost takes the port off an authority (RFC 3986 section 3.2).
func bareHost(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}

// Groups lists the names that hold more names than a list could: headers, and what stages set. Type is that of a member;
// Lookup finds members.
func Groups() []*Attribute {
	return []*Attribute{
		{Name: "request.headers", Type: cty.String, Since: exchange.Authenticate, Summary: `The first value of a request header: request.headers["name"]; empty without one.`},
		{Name: "response.headers", Type: cty.String, Since: exchange.ResponsePhase, Summary: `The first value of a response header: response.headers["name"]; empty without one.`},
		{Name: "attribute", Type: cty.String, Since: exchange.Authenticate, Summary: `What a stage before this one set: attribute["plugin.name"]; empty when none did.`},
	}
}

// Find looks one name of a group up; ok tells absent from empty.
func (a *Attribute) Find(key string) func(x *exchange.Exchange) (value string, ok bool) {
	lower := strings.ToLower(key)
	switch a.Name {
	case "request.headers":
		return func(x *exchange.Exchange) (string, bool) { return x.Request.Header.Lookup(lower) }
	case "response.headers":
		return func(x *exchange.Exchange) (string, bool) { return x.Response.Header.Lookup(lower) }
	}
	return func(x *exchange.Exchange) (string, bool) { return x.Attribute(key) }
}

// Member returns one name of a group.
func (a *Attribute) Member(key string) *Attribute {
	find := a.Find(key)
	if a.Name != "attribute" {
		key = strings.ToLower(key)
	}
	return &Attribute{Name: a.Name + `["` + key + `"]`, Type: cty.String, Since: a.Since, Summary: a.Summary, Read: Reader{
		Text: func(x *exchange.Exchange) string { v, _ := find(x); return v },
	}}
}

func group(name string) (*Attribute, bool) {
	for _, g := range Groups() {
		if g.Name == name {
			return g, true
		}
	}
	return nil, false
}

// Lookup finds an attribute by the name that a manifest or an expression uses. A member of a group is written
// request.headers["name"], or request.headers.name.
func Lookup(name string) (*Attribute, bool) {
	for _, a := range All() {
		if a.Name == name {
			return a, true
		}
	}
	traversal, diags := hclsyntax.ParseTraversalAbs([]byte(name), "", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, false
	}
	r := Resolve(traversal)
	if r.Attribute == nil || len(r.Rest) > 0 {
		return nil, false
	}
	return r.Attribute, true
}

// Resolution is what a traversal begins with in the catalogue.
type Resolution struct {
	Attribute *Attribute    // nil: there is none
	Group     *Attribute    // set when it names a group and no member of it
	Rest      hcl.Traversal // what follows the attribute
}

// Resolve finds the longest name of the catalogue that t begins with.
func Resolve(t hcl.Traversal) (r Resolution) {
	name := t.RootName()
	for i := 1; ; i++ {
		if g, ok := group(name); ok {
			if key := memberKey(t[i:]); key != "" {
				return Resolution{Attribute: g.Member(key), Rest: t[i+1:]}
			}
			return Resolution{Group: g}
		}
		for _, a := range All() {
			if a.Name == name {
				r = Resolution{Attribute: a, Rest: t[i:]}
			}
		}
		if i == len(t) {
			return r
		}
		step, ok := t[i].(hcl.TraverseAttr)
		if !ok {
			return r
		}
		name += "." + step.Name
	}
}

// memberKey reads a group's key from the step behind its name; "" when there is none.
func memberKey(t hcl.Traversal) string {
	if len(t) == 0 {
		return ""
	}
	switch step := t[0].(type) {
	case hcl.TraverseAttr:
		return step.Name
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && !step.Key.IsNull() {
			return step.Key.AsString()
		}
	}
	return ""
}

// Append appends the attribute of x as a Value of sdk/abi: text, number, bool, a list of texts; usage as a list of ints
// in the order of exchange.Unit; targets as objects with healthy, model, upstream and weight; target as one, null when none
// is chosen.
func (a *Attribute) Append(dst []byte, x *exchange.Exchange) []byte {
	switch r := &a.Read; {
	case r.Text != nil:
		return abi.AppendString(dst, r.Text(x))
	case r.Number != nil:
		return abi.AppendInt(dst, r.Number(x))
	case r.Truth != nil:
		return abi.AppendBool(dst, r.Truth(x))
	case r.Address != nil:
		dst = abi.AppendString(dst, "")
		at := len(dst)
		if v := r.Address(x); v.IsValid() {
			dst = v.AppendTo(dst)
			binary.LittleEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
		}
	case r.Texts != nil:
		texts := r.Texts(x)
		dst = abi.AppendList(dst, len(texts))
		for _, text := range texts {
			dst = abi.AppendString(dst, text)
		}
	case r.Usage != nil:
		units := &r.Usage(x).Units
		dst = abi.AppendList(dst, len(units))
		for _, n := range units {
			dst = abi.AppendInt(dst, n)
		}
	case r.Targets != nil:
		targets := r.Targets(x)
		dst = abi.AppendList(dst, len(targets))
		for i := range targets {
			dst = AppendTarget(dst, &targets[i])
		}
	case r.Target != nil:
		t := r.Target(x)
		if t == nil {
			return abi.AppendNull(dst)
		}
		return AppendTarget(dst, t)
	}
	return dst
}

// AppendTarget appends a target as an object with healthy, model, upstream and weight.
func AppendTarget(dst []byte, t *exchange.Target) []byte {
	dst = abi.AppendObject(dst, 4)
	dst = abi.AppendBool(abi.AppendKey(dst, "healthy"), t.Healthy)
	dst = abi.AppendString(abi.AppendKey(dst, "model"), t.Model)
	dst = abi.AppendString(abi.AppendKey(dst, "upstream"), t.Upstream)
	return abi.AppendInt(abi.AppendKey(dst, "weight"), int64(t.Weight))
}
