package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/console"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// operations are how a running gateway is operated: by the admin API, and by the console, which goes through it.
type operations struct {
	api     *admin.API       // nil without an admin block
	console *console.Console // nil before the server asked for it
}

// open makes both for a server that is about to serve. It is the server's Config.Console.
func (o *operations) open(cfg *config.Config, t *telemetry.Telemetry, reload func(context.Context, *server.Server) error, files func(context.Context) (*config.Config, error)) func(*server.Server) (http.Handler, error) {
	return func(s *server.Server) (http.Handler, error) {
		c := console.Config{Server: s, Metrics: t.Metrics, Formats: formats(), Log: t.Log, Files: files}
		if cfg.Admin != nil {
			token, err := admin.Token(cfg)
			if err != nil {
				return nil, err
			}
			a := admin.Config{Token: token, Mutual: cfg.Admin.ClientCA != "", Storage: s.Storage(), Log: t.Log, Server: s, Reload: func(ctx context.Context) error { return reload(ctx, s) }}
			if cfg.Telemetry.Metrics {
				a.Metrics = t.Metrics
			}
			if o.api, err = admin.New(a); err != nil {
				return nil, err
			}
			a.Actor = "token:" + s.Storage().Audit.Fingerprint(token) // who signed in has it; this process's user is nobody
			local, err := admin.New(a)
			if err != nil {
				return nil, err
			}
			c.Admin, c.Token, c.Actor = local.Local(), token, a.Actor
		}
		var err error
		o.console, err = console.New(c)
		return o.console, err
	}
}

// close ends what the console does beside its requests. What it calls must be open still.
func (o *operations) close() {
	if o.console != nil {
		o.console.Close()
	}
}

// files loads the files again for a comparison with what is in force: quietly, and nothing is applied.
func (c *runCommand) files(ctx context.Context, a *App) (*config.Config, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cfg, _, diags := a.read(c.Dir, c.options())
	var problems []error
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			problems = append(problems, errors.New(d.Subject.String()+": "+d.Summary+": "+d.Detail))
		}
	}
	return cfg, errors.Join(problems...)
}
