package config

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"regexp"

	version "github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/console/site"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/field"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/vault"
)

var currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)

// leaves reads the blocks that stand at most once.
func (l *loader) leaves(blocks hcl.Blocks) {

	one := func(name string) *schema.Section {
		return schema.Over(l, &hcl.BodyContent{Blocks: blocks}, l.main, schema.StartOf(schema.MainFile)).One(name)
	}
	for _, b := range l.main.Blocks {
		found := blocks.OfType(b.Name)
		if !b.Repeat && len(found) > 1 {
			l.Errorf(found[1].DefRange, "Duplicate block", "Only one %s block may stand in %s; the first is at %s.", b.Name, schema.MainFile, found[0].DefRange)
		}
		if b.Required && len(found) == 0 && !l.Broken {
			l.Errorf(schema.StartOf(schema.MainFile), "Missing block", "%s has no %s block and needs one.", schema.MainFile, b.Name)
		}
	}

	s := one("gateway")
	l.config.Gateway = Gateway{Name: s.Text("name"), Requires: s.Text("requires"), Overload: l.overload(s.One("overload")), Range: s.At}
	if !schema.NamePattern.MatchString(l.config.Gateway.Name) {
		l.Errorf(s.Where("name"), "Invalid name", "The name of a gateway must be a letter, then letters, digits, _ or -, at most 63.")
	}
	l.requires(s)
	l.state(blocks.OfType("state"))
	l.config.Vault = vault.Read(one("vault"), l)

	s = one("audit")
	l.config.Audit = audit.Read(s)
	l.facts.Stores = append(l.facts.Stores, privacy.Storing{Feature: field.Audit, Keep: cmp.Or(l.config.Audit.Retain, privacy.Forever), At: s.Where("retain")})

	s = one("ledger")
	l.config.Ledger = Ledger{Currency: s.Text("currency"), HoldTTL: s.Span("hold_ttl"), Retain: s.Span("retain"), Range: s.At}
	l.facts.Stores = append(l.facts.Stores, privacy.Storing{Feature: field.Ledger, Keep: cmp.Or(l.config.Ledger.Retain, privacy.Forever), At: s.Where("retain")})
	if !currencyPattern.MatchString(l.config.Ledger.Currency) {
		l.Errorf(s.Where("currency"), "Invalid currency", "currency must be an ISO 4217 code of three capital letters, such as \"USD\".")
	}

	s = one("usage")
	l.config.Usage = Usage{Keep: s.Span("keep"), Sums: s.Span("sums"), Range: s.At}
	l.facts.Stores = append(l.facts.Stores,
		privacy.Storing{Feature: field.Usage, Keep: l.config.Usage.Keep, At: s.Where("keep")},
		privacy.Storing{Feature: field.Sums, Keep: l.config.Usage.Sums, At: s.Where("sums")})
	if u := l.config.Usage; u.Sums < u.Keep {
		l.Errorf(s.Where("sums"), "Sums kept too short", "sums must not be below keep: what records come to is kept at least as long as they are.")
	}

	l.config.Privacy = privacy.Read(l.Findings, one("privacy"), l.upstreams.Names(), l.plugins.Names())
	if s = one("accounts"); s.Given {
		l.config.Accounts = settings.Read(l.Reader, s, l.config.Gateway.Name)
	}
	if s = one("admin"); s.Given {
		l.admin(s)
	}

	l.config.Console = site.Read(one("console"), l.Errorf)

	s = one("telemetry")
	log, traces := s.One("log"), s.One("traces")
	l.config.Telemetry = Telemetry{
		LogLevel: log.Word("level"), LogFormat: log.Word("format"), AccessLog: log.Flag("access"), Metrics: s.Flag("metrics"),
		TraceEndpoint: traces.Text("endpoint"), TraceRatio: traces.Ratio("ratio"), Range: s.At,
	}
	l.facts.LogAt, l.facts.TracesAt = log.Where("access"), traces.Where("endpoint")
	if t := l.config.Telemetry.TraceEndpoint; t != "" {
		if u, err := url.Parse(t); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			l.Errorf(traces.Where("endpoint"), "Invalid URL", "endpoint must be an http or https URL, such as \"http://127.0.0.1:4318\".")
		}
	}
}

// requires checks the version constraint.
func (l *loader) requires(s *schema.Section) {
	text := l.config.Gateway.Requires
	if text == "" {
		return
	}
	constraint, err := version.NewConstraint(text)
	if err != nil {
		l.Errorf(s.Where("requires"), "Invalid version constraint", "requires must be one or more of =, !=, >, >=, <, <= or ~> with a version, separated by commas, such as \">= 0.1\".")
		return
	}
	if l.opt.Version == "" {
		return
	}
	// A pre-release satisfies what its release will: constraints are about what a configuration uses.
	if v, err := version.NewVersion(l.opt.Version); err == nil && !constraint.Check(v.Core()) {
		l.Errorf(s.Where("requires"), "Wrong version", "This configuration is for Postern %s; this is Postern %s.", text, l.opt.Version)
	}
}

// state decodes the state block by its backend's own specification.
func (l *loader) state(blocks hcl.Blocks) {
	if len(blocks) == 0 {
		return
	}
	b := blocks[0]
	var names []string
	for _, backend := range l.opt.Backends {
		names = append(names, backend.Name)
		if backend.Name != b.Labels[0] {
			continue
		}
		l.config.State = State{Backend: backend.Name, Range: b.DefRange} // without Arguments until they are in order
		ok := true
		for _, t := range hcldec.Variables(b.Body, backend.Spec) {
			ok = l.Known(t) && ok
		}
		if !ok {
			return
		}
		v, diags := hcldec.Decode(b.Body, backend.Spec, l.Context)
		l.Add(diags)
		if diags.HasErrors() {
			return
		}
		l.config.State.Arguments = v
		if !v.Type().IsObjectType() || !v.Type().HasAttribute("dir") {
			return
		}
		if dir := v.GetAttr("dir"); schema.Textual(dir) && !dir.IsMarked() {
			l.config.State.Dir = l.Absolute(dir.AsString())
		}
		return
	}
	l.Errorf(b.LabelRanges[0], "Unknown backend", "There is no state backend %q.%s", b.Labels[0], schema.Choices(b.Labels[0], names))
}

func (l *loader) admin(s *schema.Section) {
	token, isSecret := s.SecretText("token")
	a := &Admin{Address: s.Text("address"), Token: token, ClientCA: l.File(s, "client_ca"), Withheld: token == "" && s.Set("token"), Range: s.At}
	l.config.Admin = a
	if token != "" && len(token) < 16 {
		l.Errorf(s.Where("token"), "Token too short", "The token must have at least 16 characters; \"openssl rand -hex 32\" makes one.")
	}
	if token != "" && !isSecret {
		l.Warnf(s.Where("token"), "Token in the open", "The token stands in the file. Read it from a secret block instead.")
	}
	if !s.Set("token") && !s.Set("client_ca") && l.config.State.Arguments != cty.NilVal && l.config.State.Dir == "" {
		l.Errorf(s.At, "Missing token", "The admin listener needs a token or client_ca: this state backend has no folder in which a random token could be kept.")
	}
	if !l.Address(s, a.Address) || a.ClientCA != "" || s.Set("client_ca") {
		return
	}
	host, _, _ := net.SplitHostPort(a.Address)
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		l.Errorf(s.Where("address"), "Admin not on loopback", "Without client_ca the admin listener must be on a loopback address, such as \"127.0.0.1:9901\".")
	}
}
