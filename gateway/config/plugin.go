package config

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/plugin/bundle"
	"github.com/postern-gateway/postern/gateway/schema"
)

var hashPattern = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

func (l *loader) pluginBlocks() {
	kind := l.main.Find("plugin")
	for _, n := range l.plugins.List {
		s := schema.Open(l, n.Block, kind)
		p := n.Value
		*p = Plugin{
			Name: n.Name, Source: s.Text("source"), SHA256: strings.ToLower(s.Text("sha256")), Grants: s.Words("grants"), Watch: s.Flag("watch"), Range: s.At,
			Limits: pluginLimits(s.One("limits")),
		}
		if p.SHA256 != "" && !hashPattern.MatchString(p.SHA256) {
			l.Errorf(s.Where("sha256"), "Invalid hash", "sha256 is 64 hexadecimal digits, as sha256sum prints them.")
			p.SHA256 = ""
		}
		if p.Source == "" {
			continue
		}
		l.manifest(p, s)
		if p.Manifest == nil {
			continue
		}
		l.fetchBlock(p, s)
		for _, g := range p.Grants {
			if !p.Manifest.Asks(g) {
				l.Errorf(s.Where("grants"), "Useless grant", "The plugin does not ask for %s. Remove it: a grant nobody needs is only a risk.", g)
			}
		}
		for _, g := range p.Manifest.Grants {
			if !g.Optional && !slices.Contains(p.Grants, g.Capability) {
				l.Errorf(s.Where("grants"), "Missing grant", "The plugin asks for %s: it %s. If you consent, write grants = [%s].", g.Capability, g.Reason, strings.Join(append(slices.Clone(p.Grants), g.Capability), ", "))
			}
		}
	}
}

func pluginLimits(s *schema.Section) PluginLimits {
	return PluginLimits{
		Memory: s.Size("memory"), CPU: s.Span("cpu"), CPUPerKiB: s.Span("cpu_per_kib"), Start: s.Span("start"), Depth: int(s.Count("depth")),
		Instances: int(s.Count("instances")), Queue: s.Span("queue"), Wait: s.Span("wait"),
		Operations: int(s.Count("operations")), Log: s.Size("log"),
	}
}

// manifest finds a plugin's module and manifest.
func (l *loader) manifest(p *Plugin, s *schema.Section) {
	b := bundle.Open(l.Absolute(p.Source))
	p.Path = b.Path
	path := l.Relative(b.Path)
	switch {
	case b.Missing != nil && (l.opt.Modules || !errors.Is(b.Missing, fs.ErrNotExist)):
		l.Errorf(s.Where("source"), "Unreadable module", "The module %s can not be read: %s. Build it first.", path, schema.Cause(b.Missing))
	case b.Missing == nil && p.SHA256 != "" && b.Digest != p.SHA256:
		l.Errorf(s.Where("sha256"), "Wrong hash", "The module %s is another one: its SHA-256 is %s.", path, b.Digest)
	}
	if b.Stale {
		l.Warnf(s.Where("source"), "Stale module", "%s was packed with another manifest than the plugin.hcl beside it. Build it again.", path)
	}
	p.Manifest = l.manifestText(s, b)
	// Who runs the module admits it anyway, and once for as long as it stays the same.
	if p.Manifest != nil && b.Refusal == nil && b.Missing == nil && !l.opt.Modules && l.opt.Admit != nil {
		var m *admission.Module
		if m, b.Refusal = b.Admit(p.Limits.Memory); b.Refusal == nil {
			b.Refusal = l.opt.Admit(m, p.Manifest)
		}
	}
	if b.Refusal != nil {
		l.Errorf(s.Where("source"), "Refused module", "%s can not be run here: %s.", path, b.Refusal)
	}
}

// manifestText reads a plugin's manifest; nil when something is wrong with it.
func (l *loader) manifestText(s *schema.Section, b *bundle.Bundle) *manifest.Manifest {
	name := l.Relative(b.Name)
	if b.Absent != nil {
		l.Errorf(s.Where("source"), "Missing manifest", "There is no manifest: %s can not be read (%s), and no module holds one.", name, schema.Cause(b.Absent))
		return nil
	}
	l.Sources[name] = b.Manifest
	m, diags := manifest.Parse(b.Manifest, name)
	l.Add(diags)
	if diags.HasErrors() {
		return nil
	}
	l.sees(m, name)
	return m
}

// sees checks what a manifest wants to see against what there is at each phase.
func (l *loader) sees(m *manifest.Manifest, name string) {
	for _, h := range m.Hooks {
		for _, seen := range h.Sees.Attributes {
			at := l.Quoted(h.Range, name, seen)
			a, ok := attribute.Lookup(seen)
			if !ok {
				var names []string
				for _, a := range attribute.All() {
					names = append(names, a.Name)
				}
				l.Errorf(at, "Unknown attribute", "There is no attribute %q.%s", seen, schema.Choices(seen, names))
			} else if a.Since > h.Phase {
				l.Errorf(at, "Not known yet", "%s is known from phase %s on, and this hook is at %s.", seen, a.Since, h.Phase)
			}
		}
	}
}
