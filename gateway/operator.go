package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/state"
)

// place says which gateway a command is about.
type place struct {
	Dir string            `default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
}

// operate connects to the gateway of a folder: to the running one, or, when none has the store open, to the store itself
// through the same API in this process.
func (a *App) operate(p place, needsRunning bool) (*admin.Client, error) {
	cfg, err := a.Load(p.Dir, config.Options{Variables: p.Var, Secrets: true, Elsewhere: true})
	if err != nil {
		return nil, err
	}
	if !needsRunning && cfg.State.Dir != "" { // what is kept in memory is the running gateway's alone
		if !cfg.State.Arguments.IsWhollyKnown() {
			return nil, fmt.Errorf("%s: the state block uses a secret that can not be read here", cfg.State.Range)
		}
		log := slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		storage, err := server.OpenStorage(a.Context, backends(), cfg, log)
		if err == nil {
			return offline(storage, log)
		}
		if !errors.Is(err, state.ErrLocked) {
			return nil, err
		}
	}
	if cfg.Admin == nil {
		return nil, errors.New("the running gateway can only be asked through an admin block, and the configuration has none: add one and restart it, or stop it first")
	}
	if cfg.Admin.Withheld {
		return nil, fmt.Errorf("%s: the admin token is a secret that can not be read here", cfg.Admin.Range)
	}
	token, err := admin.Token(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Admin.ClientCA != "" {
		return nil, errors.New("the admin listener asks for client certificates: use the admin API with one")
	}
	return admin.NewClient(cfg.Admin.Address, token), nil
}

// offline acts on a store that no gateway has open.
func offline(storage *server.Storage, log *slog.Logger) (*admin.Client, error) {
	api, err := admin.New(admin.Config{Token: "local", Storage: storage, Log: log}) // it has no other caller
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	return api.Local(), nil
}

// with runs f connected.
func (a *App) with(p place, needsRunning bool, f func(*admin.Client) error) (err error) {
	o, err := a.operate(p, needsRunning)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return f(o)
}

type reloadCommand struct {
	place
}

// Run has the running gateway load its files again and says what came of it.
func (c *reloadCommand) Run(a *App) error {
	return a.with(c.place, true, func(o *admin.Client) error {
		var status server.Status
		if err := o.Call(a.Context, http.MethodPost, "/v1/reload", nil, &status); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.Stdout, "applied %s\n", status.Config[:12])
		return err
	})
}
