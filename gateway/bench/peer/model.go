//go:build linux

package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func findPlain(ctx context.Context, t Tools) (Tool, error) {
	path := filepath.Join(t.Root, "bin", "bench", "plain")
	if !executable(path) {
		return Tool{}, errors.New("bin/bench/plain is not built; make bench builds it")
	}
	version, err := built(ctx, path, "github.com/valyala/fasthttp")
	return Tool{Path: path, Version: version}, err
}

func preparePlain(_ context.Context, s Site) (plan, error) {
	return plan{args: []string{s.tool, "-listen", s.Address, "-origin", s.Origin, "-key", "sk-bench"}, header: [][2]string{{"authorization", "Bearer sk-bench"}}}, nil
}

func findLiteLLM(_ context.Context, t Tools) (Tool, error) {
	path := filepath.Join(t.Root, "bin", "tools", "litellm", "bin", "litellm")
	if !executable(path) {
		var err error
		if path, err = lookup(t, "litellm"); err != nil {
			return Tool{}, err
		}
	}
	// It takes a quarter of a minute to say its version; its installer has written it down.
	version := "unknown"
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if found, err := filepath.Glob(filepath.Join(filepath.Dir(real), "..", "lib", "python*", "site-packages", "litellm-[0-9]*.dist-info")); err == nil && len(found) == 1 {
			version = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "litellm-"), ".dist-info")
		}
	}
	return Tool{Path: path, Version: version}, nil
}

func prepareLiteLLM(_ context.Context, s Site) (plan, error) {
	text := fmt.Sprintf(`model_list:
- model_name: small
  litellm_params:
    model: openai/gpt-4o-mini
    api_base: http://%s/v1
    api_key: sk-origin
general_settings:
  master_key: sk-bench
litellm_settings:
  telemetry: false
`, s.Origin)
	return plan{
		args:   []string{s.tool, "--config", filepath.Join(s.Dir, "config.yaml"), "--host", "127.0.0.1", "--port", portOf(s.Address), "--num_workers", "1"},
		env:    []string{"LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_MODE=PRODUCTION", "LITELLM_LOG=ERROR", "LITELLM_TELEMETRY=False", "NO_DOCS=True"},
		header: [][2]string{{"authorization", "Bearer sk-bench"}},
	}, s.write("config.yaml", text)
}

func findPortkey(_ context.Context, t Tools) (Tool, error) {
	node, err := lookup(t, "node")
	if err != nil {
		return Tool{}, err
	}
	dir := filepath.Join(t.Root, "bin", "tools", "portkey", "node_modules", "@portkey-ai", "gateway")
	b, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return Tool{}, errors.New("it is not installed; sh .ci/tools bench installs it where it can be had")
	}
	var project struct{ Version string }
	if err := json.Unmarshal(b, &project); err != nil {
		return Tool{}, fmt.Errorf("read package.json: %w", err)
	}
	return Tool{Path: node, Version: project.Version}, nil
}

func preparePortkey(_ context.Context, s Site) (plan, error) {
	server := filepath.Join(s.Root, "bin", "tools", "portkey", "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
	return plan{
		args:   []string{s.tool, server, "--port=" + portOf(s.Address), "--headless"},
		env:    []string{"NODE_ENV=production"},
		header: [][2]string{{"authorization", "Bearer sk-bench"}, {"x-portkey-provider", "openai"}, {"x-portkey-custom-host", "http://" + s.Origin + "/v1"}},
	}, nil
}
