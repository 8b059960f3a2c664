package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/project/trial"
)

type runCommand struct {
	Dir      string        `arg:"" optional:"" default:"." type:"existingdir" help:"The plugin's folder; by default the current one."`
	Upstream string        `required:"" placeholder:"URL" help:"The server to stand in front of: scheme, host and port."`
	Listen   string        `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen."`
	Build    bool          `help:"Build the sources, and build them again when they change."`
	Origin   []string      `placeholder:"URL" help:"Where a plugin with the grant fetch may fetch from; repeatable. Addresses of this machine and of private networks are allowed."`
	Watch    time.Duration `default:"500ms" help:"How often to look whether something has changed."`
}

// mostFiles bounds how many files of a project are watched.
const mostFiles = 10_000

// Run serves until interrupted.
func (c *runCommand) Run(s *Shell) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	p, err := s.Open(c.Dir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postern-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	module := p.Module()
	begun := c.state(p, module) // before anything is read, so that no change is missed
	if c.Build {
		module = filepath.Join(dir, p.Name+".wasm")
		if err := s.rebuild(p, module); err != nil {
			return err
		}
	} else if _, err := os.Stat(module); err != nil {
		return fmt.Errorf("%s is not there: build it first, with postern plugin build, or say --build", relative(module))
	}
	if err := c.configure(s, p, module, dir); err != nil {
		return err
	}
	fmt.Fprintf(s.Stderr, "%s serves at http://%s in front of %s. Interrupt to stop.\n", p.Name, c.Listen, c.Upstream)
	ctx, cancel := context.WithCancel(s.Context)
	changed := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx, s, p, module, dir, begun, changed)
	}()
	err = s.Serve(ctx, dir, changed)
	cancel()
	<-watched
	return err
}

func (c *runCommand) check() error {
	for _, text := range append([]string{c.Upstream}, c.Origin...) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("%q is not a URL of scheme, host and port alone, such as http://127.0.0.1:9000", text)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if c.Watch < 10*time.Millisecond {
		return errors.New("--watch: at least 10ms")
	}
	return nil
}

// rebuild compiles the sources, with line tables, and puts the module in its place.
func (s *Shell) rebuild(p *Project, module string) error {
	wasm, err := s.build(p, true)
	if err != nil {
		return err
	}
	return writeFile(module, wasm)
}

// configure writes the configuration of a gateway that has this plugin and nothing else: its policies are the project's
// policy.hcl, or else every hook without arguments.
func (c *runCommand) configure(s *Shell, p *Project, module, dir string) error {
	alone := p.alone(module)
	text, err := readFile(filepath.Join(p.Dir, trial.PolicyFile), maxPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = trial.Whole(alone), nil
	}
	if err != nil {
		return err
	}
	_, policies, sources, diags := trial.Load(p.Dir, alone)
	if err := s.tell(sources, diags); err != nil {
		return err
	}
	var names []string
	for _, policy := range policies {
		names = append(names, "policy."+policy.Name)
	}
	var b bytes.Buffer
	q := func(text string) string { return string(hclwrite.TokensForValue(cty.StringVal(text)).Bytes()) }
	fmt.Fprintf(&b, "state \"memory\" {}\n\ntelemetry {\n  log {\n    level  = debug\n    format = text\n  }\n}\n\n")
	fmt.Fprintf(&b, "listener \"run\" {\n  address   = %s\n  protocols = [http1, http2]\n}\n\n", q(c.Listen))
	fmt.Fprintf(&b, "plugin %q {\n  source = %s\n  grants = [%s]\n", p.Name, q(module), strings.Join(alone.Grants, ", "))
	if slices.Contains(alone.Grants, "fetch") {
		var origins []string
		for _, o := range c.Origin {
			origins = append(origins, fmt.Sprintf("{ url = %s, private = true }", q(o)))
		}
		fmt.Fprintf(&b, "\n  fetch {\n    origins = [%s]\n  }\n", strings.Join(origins, ", "))
	}
	fmt.Fprintf(&b, "}\n\nupstream \"run\" {\n  endpoints = [%s]\n}\n\n", q(c.Upstream))
	fmt.Fprintf(&b, "route \"all\" {\n  listener = listener.run\n  match    = \"/\"\n  policies = [%s]\n  upstream = upstream.run\n}\n", strings.Join(names, ", "))
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		return err
	}
	return errors.Join(writeFile(filepath.Join(dir, "policies", trial.PolicyFile), text), writeFile(filepath.Join(dir, "config.hcl"), b.Bytes()))
}

// watch looks for changes since seen until ctx ends. What is wrong with one is told, and what serves goes on.
func (c *runCommand) watch(ctx context.Context, s *Shell, p *Project, module, dir, seen string, changed chan<- struct{}) {
	tick := time.NewTicker(c.Watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := c.state(p, module)
		if now == seen {
			continue
		}
		seen = now
		if err := c.renew(s, p, module, dir); err != nil {
			if !errors.Is(err, ErrTold) && ctx.Err() == nil {
				fmt.Fprintf(s.Stderr, "%s; what was served goes on\n", err)
			}
			continue
		}
		select {
		case changed <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// renew takes the changed files in.
func (c *runCommand) renew(s *Shell, p *Project, module, dir string) error {
	again, err := s.Open(p.Dir)
	if err != nil {
		return err
	}
	if c.Build {
		if err := s.rebuild(again, module); err != nil {
			return err
		}
	} else if wasm, err := readFile(module, maxRead); err != nil {
		return err
	} else if text, packed, err := manifest.Section(wasm); err == nil && packed {
		if again.Manifest, err = s.parse(text, relative(module)); err != nil {
			return err
		}
	}
	return c.configure(s, again, module, dir)
}

// state is a fingerprint of what is watched: names, sizes and times of change.
func (c *runCommand) state(p *Project, module string) string {
	var b strings.Builder
	note := func(name string, info fs.FileInfo) {
		fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	if !c.Build {
		for _, name := range []string{module, filepath.Join(p.Dir, ManifestFile), filepath.Join(p.Dir, trial.PolicyFile)} {
			if info, err := os.Stat(name); err == nil {
				note(name, info)
			}
		}
		return b.String()
	}
	left := mostFiles
	_ = filepath.WalkDir(p.Dir, func(name string, d fs.DirEntry, err error) error { // what can not be read is not watched
		switch {
		case err != nil || left <= 0:
			return filepath.SkipDir
		case d.IsDir() && name != p.Dir && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"node_modules", "target", "zig-out"}, d.Name())):
			return filepath.SkipDir
		case d.IsDir() || strings.HasPrefix(d.Name(), ".") || filepath.Ext(name) == ".wasm":
			return nil
		}
		left--
		if info, err := d.Info(); err == nil {
			note(name, info)
		}
		return nil
	})
	return b.String()
}
