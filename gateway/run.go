package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/certificate"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
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
	operators, err := bindAdmin(cfg)
	if err != nil {
		return err
	}
	defer operators.close()
	s, err := server.New(a.Context, server.Config{Backends: backends(), Formats: formats(), ABIs: abis(), Child: a.Child, Telemetry: t}, cfg)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		err = errors.Join(err, s.Shutdown(ctx))
	}()
	reload := func(ctx context.Context) error {
		next, err := c.again(ctx, a, t.Log)
		if err != nil {
			t.Metrics.Reload(false)
			s.Refused(ctx, err)
			return err
		}
		return s.Apply(ctx, next)
	}
	watching, stopWatching := context.WithCancel(a.Context)
	var watch sync.WaitGroup
	watch.Go(func() { s.Watch(watching, watchEvery, reload) })
	defer watch.Wait()
	defer stopWatching()
	if cfg.Admin != nil {
		stop, err := operators.serve(cfg, s, t, reload)
		if err != nil {
			return err
		}
		defer stop()
	}
	for {
		select {
		case <-hangup:
			_ = reload(a.Context) // refusals are logged, counted and shown by the admin API
		case <-c.changed:
			_ = reload(a.Context)
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

// adminListener is the operators' address, bound.
type adminListener struct {
	net.Listener
}

// bindAdmin binds the address of the admin block, if there is one. Who connects waits until serve answers.
func bindAdmin(cfg *config.Config) (*adminListener, error) {
	if cfg.Admin == nil {
		return &adminListener{}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Admin.Address)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	return &adminListener{l}, nil
}

// close gives the address back; serve's stop does so too.
func (l *adminListener) close() {
	if l.Listener != nil {
		_ = l.Close() // the second time is an error that means nothing
	}
}

// serve answers on the operators' listener.
func (l *adminListener) serve(cfg *config.Config, s *server.Server, t *telemetry.Telemetry, reload func(context.Context) error) (stop func(), err error) {
	token, err := admin.Token(cfg)
	if err != nil {
		return nil, err
	}
	c := admin.Config{Token: token, Mutual: cfg.Admin.ClientCA != "", Storage: s.Storage(), Log: t.Log, Server: s, Reload: reload}
	if cfg.Telemetry.Metrics {
		c.Metrics = t.Metrics
	}
	api, err := admin.New(c)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(t.Log.Handler(), slog.LevelWarn)}
	if cfg.Admin.ClientCA != "" {
		if srv.TLSConfig, err = adminTLS(cfg, t.Log); err != nil {
			return nil, err
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			t.Log.Error("admin listener ended", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // its time is over
		}
		<-done
	}, nil
}

// adminTLS is the admin listener's TLS: a certificate of the development CA for its host, for clients that have one of
// client_ca's.
func adminTLS(cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	names := []string{"localhost"}
	if host, _, err := net.SplitHostPort(cfg.Admin.Address); err == nil && host != "" {
		names = append(names, host)
	}
	store, err := certificate.Load(certificate.Config{
		Listener: "admin", SelfSigned: names, ClientCA: cfg.Admin.ClientCA, Protocols: []exchange.Protocol{exchange.HTTP1},
		Authority: certificate.NewAuthority(cfg.State.Dir), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return store.TCP(), nil },
	}, nil
}
