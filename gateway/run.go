package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

type runCommand struct {
	Dir string            `arg:"" optional:"" default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`

	changed <-chan struct{} // nil, or says when to load the files again, as a hangup does
}

// stopTime bounds a graceful stop; each listener's own drain time applies within it.
const stopTime = 5 * time.Minute

// watchEvery is how often a running gateway looks at the files of plugins that it watches.
const watchEvery = 2 * time.Second

// Run serves until the context ends, then stops gracefully. SIGHUP loads the files again.
func (c *runCommand) Run(a *App) (err error) {
	cfg, err := a.Load(c.Dir, c.options())
	if err != nil {
		return err
	}
	// Before anything takes time: a hangup without a handler would end the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	t, err := telemetry.New(a.Context, telemetry.Config{
		Node: cfg.Gateway.Name, Version: version(), Output: a.Stderr, LogLevel: cfg.Telemetry.LogLevel, LogFormat: cfg.Telemetry.LogFormat,
		TraceEndpoint: cfg.Telemetry.TraceEndpoint, TraceRatio: cfg.Telemetry.TraceRatio,
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, t.Close(ctx))
	}()
	t.Log.InfoContext(a.Context, "starting", "version", version(), "node", cfg.Gateway.Name, "dir", cfg.Dir, "config", cfg.Digest[:12])
	// The admin address is bound first, so that nothing serves when it is taken, and answered last.
	operators, err := admin.Bind(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = operators.Close() }()
	reload := func(ctx context.Context, s *server.Server) error {
		next, err := c.again(ctx, a, t.Log)
		if err != nil {
			t.Metrics.Reload(false)
			s.Refused(ctx, err)
			return err
		}
		return s.Apply(ctx, next)
	}
	ops := new(operations)
	s, err := server.New(a.Context, server.Config{
		Backends: backends(), Formats: formats(), ABIs: abis(), Child: a.Child, Telemetry: t,
		Console: ops.open(cfg, t, reload, func(ctx context.Context) (*config.Config, error) { return c.files(ctx, a) }),
	}, cfg)
	if err != nil {
		ops.close()
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		err = errors.Join(err, s.Shutdown(ctx))
	}()
	defer ops.close()
	watching, stopWatching := context.WithCancel(a.Context)
	var watch sync.WaitGroup
	watch.Go(func() {
		watchFiles(watching, s, t.Log, watchEvery, func(ctx context.Context) error { return reload(ctx, s) })
	})
	defer watch.Wait()
	defer stopWatching()
	if cfg.Admin != nil {
		stop, err := operators.Serve(cfg, ops.api, t.Log)
		if err != nil {
			return err
		}
		defer stop()
	}
	for {
		select {
		case <-hangup:
			_ = reload(a.Context, s) // refusals are logged, counted and shown by the admin API
		case <-c.changed:
			_ = reload(a.Context, s)
		case <-a.Context.Done():
			return nil
		}
	}
}

func (c *runCommand) options() config.Options {
	return config.Options{Variables: c.Var, Secrets: true, Modules: true}
}

// again loads the files while the gateway runs: what is wrong with them goes to the log, a line each, since nobody may
// be looking at the terminal.
func (c *runCommand) again(ctx context.Context, a *App, log *slog.Logger) (*config.Config, error) {
	cfg, _, diags := a.read(c.Dir, c.options())
	mistakes := 0
	for _, d := range diags {
		level := slog.LevelWarn
		if d.Severity == hcl.DiagError {
			level = slog.LevelError
			mistakes++
		}
		log.LogAttrs(ctx, level, "configuration: "+d.Summary, slog.String("at", fmt.Sprintf("%s:%d:%d", d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column)), slog.String("detail", d.Detail))
	}
	switch mistakes {
	case 0:
		return cfg, nil
	case 1:
		return nil, errors.New("the files have a mistake; the log and postern validate show it")
	}
	return nil, fmt.Errorf("the files have %d mistakes; the log and postern validate show them", mistakes)
}
