package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/plugin/bundle"
	"github.com/postern-gateway/postern/gateway/server"
)

// stamp is by what a change of a plugin's files is noticed: when they were written and how long they are.
type stamp struct {
	module, manifest         time.Time
	moduleSize, manifestSize int64
}

// watchFiles looks at the files of plugins with watch = true, every so often until ctx ends, and calls reload when one is another
// than what is in use. A file counts when it was the same at two looks, since it may still be written at the first; one that
// is refused is not tried again until it changes.
func watchFiles(ctx context.Context, s *server.Server, log *slog.Logger, every time.Duration, reload func(context.Context) error) {
	seen, checked := map[string]stamp{}, map[string]stamp{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		cfg, changed := s.Config(), false
		for _, p := range cfg.Plugins {
			if !p.Watch {
				continue
			}
			now := stampOf(p)
			if now == seen[p.Path] && now != checked[p.Path] {
				checked[p.Path] = now
				changed = changed || replaced(s, p)
			}
			seen[p.Path] = now
		}
		if changed {
			log.InfoContext(ctx, "a plugin's files have changed")
			_ = reload(ctx) // refusals are logged, counted and shown by the admin API
		}
	}
}

func stampOf(p *config.Plugin) (at stamp) {
	if info, err := os.Stat(p.Path); err == nil {
		at.module, at.moduleSize = info.ModTime(), info.Size()
	}
	if info, err := os.Stat(filepath.Join(filepath.Dir(p.Path), "plugin.hcl")); err == nil {
		at.manifest, at.manifestSize = info.ModTime(), info.Size()
	}
	return at
}

// replaced reports whether a plugin's files are not those in use.
func replaced(s *server.Server, p *config.Plugin) bool {
	source := p.Path
	if filepath.Ext(p.Source) != ".wasm" {
		source = filepath.Dir(p.Path)
	}
	b := bundle.Open(source)
	if !bytes.Equal(b.Manifest, p.Manifest.Source) {
		return true
	}
	digest, used := s.Module(p.Name)
	return used && digest != b.Digest
}
