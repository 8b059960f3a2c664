//go:build linux

package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

func findPostern(ctx context.Context, t Tools) (Tool, error) {
	path := filepath.Join(t.Root, "bin", "postern")
	if !executable(path) {
		return Tool{}, errors.New("bin/postern is not built; make builds it")
	}
	version, err := built(ctx, path, "github.com/postern-gateway/postern")
	return Tool{Path: path, Version: version}, err
}

// preparePostern configures Postern with none, one or four of its own policies. With any it has a store on disk, an account with a
// balance and a key.
func preparePostern(policies int) func(context.Context, Site) (plan, error) {
	return func(ctx context.Context, s Site) (plan, error) {
		p := plan{args: []string{s.tool, "run", s.Dir}}
		if err := s.write("config.hcl", posternConfig(s, policies)); err != nil || policies == 0 {
			return p, err
		}
		text := "policy \"one\" {\n  authenticate \"apikey\" {}\n}\n"
		if policies == 4 {
			text = `policy "four" {
  authenticate "apikey" {}

  admit "ratelimit" {
    config {
      key   = identity.account
      rate  = "1000000/s"
      burst = 1000000
    }
  }

  admit "meter" {}

  route "models" {}

  response "ratelimit" {}

  account "ratelimit" {}

  account "meter" {}
}
`
		}
		if err := s.write("policies/bench.hcl", text); err != nil {
			return p, err
		}
		account, err := s.command(ctx, "account", "create", "bench")
		if err != nil {
			return p, err
		}
		if _, err := s.command(ctx, "ledger", "credit", account, "1000000000", "-key", "bench"); err != nil {
			return p, err
		}
		key, err := s.command(ctx, "account", "key", "create", account, "-name", "bench", "-scope", "models:call")
		p.header = [][2]string{{"authorization", "Bearer " + key}}
		return p, err
	}
}

// command runs postern on the site's folder and returns the word it prints.
func (s Site) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.tool, append(args, "-dir", s.Dir)...) //nolint:gosec // ours
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("postern %s: %w\n%s", strings.Join(args, " "), err, told.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func posternConfig(s Site, policies int) string {
	var b strings.Builder
	protocols, tls := "http1, http2", ""
	if s.TLS {
		tls = fmt.Sprintf("\n  tls {\n    cert = %q\n    key  = %q\n  }\n", s.Cert, s.Key)
	}
	if s.HTTP3 {
		protocols += ", http3"
	}
	state := `state "memory" {}`
	if policies > 0 {
		state = "state \"badger\" {\n  dir = \"data\"\n}"
	}
	fmt.Fprintf(&b, `%s

telemetry {
  log {
    level  = error
    access = false
  }
}

listener "public" {
  address   = %q
  protocols = [%s]
%s
  limits {
    requests = 1000000000
    streams  = 250
  }
}

`, state, s.Address, protocols, tls)
	format, route := "", "upstream = upstream.origin"
	if policies == 4 {
		format = "  format    = openai\n"
		route = "policies = [policy.four]\n  models   = [model.small]"
	} else if policies == 1 {
		route = "policies = [policy.one]\n  upstream = upstream.origin"
	}
	fmt.Fprintf(&b, `upstream "origin" {
%s  endpoints = ["http://%s"]

  pool {
    idle = 1024
  }
}

`, format, s.Origin)
	plugin := func(name, grants string) {
		fmt.Fprintf(&b, "plugin %q {\n  source = %q\n%s}\n\n", name, filepath.Join(s.Root, "plugins", name), grants)
	}
	match := "/"
	if policies > 0 {
		plugin("apikey", "  grants = [accounts]\n")
	}
	if policies == 4 {
		match = "POST /v1/chat/completions"
		plugin("ratelimit", "  grants = [state]\n")
		plugin("models", "")
		plugin("meter", "  grants = [ledger]\n\n  limits {\n    instances = 32\n  }\n")
		b.WriteString(`model "small" {
  max_output = 4096

  target {
    upstream = upstream.origin
    model    = "gpt-4o-mini"
  }

  price {
    per    = 1000000
    input  = 0.15
    cached = 0.075
    output = 0.60
  }
}

`)
	}
	fmt.Fprintf(&b, "route \"all\" {\n  listener = listener.public\n  match    = %q\n  %s\n}\n", match, route)
	return b.String()
}
