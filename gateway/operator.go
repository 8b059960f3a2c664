package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

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

// operator speaks the admin API: to the running gateway, or, when none has the store open, to the store itself through the
// same handler in memory.
type operator struct {
	base  string
	token string
	do    func(*http.Request) (status int, body []byte, err error)
	close func() error
}

// operate connects to the gateway of a folder.
func (a *App) operate(p place, needsRunning bool) (*operator, error) {
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
	token, err := server.AdminToken(cfg)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 5 * time.Minute}
	base := "http://" + cfg.Admin.Address
	if cfg.Admin.ClientCA != "" {
		return nil, errors.New("the admin listener asks for client certificates: use the admin API with one")
	}
	do := func(r *http.Request) (int, []byte, error) {
		resp, err := client.Do(r)
		if err != nil {
			return 0, nil, fmt.Errorf("no gateway answers at the admin address %s (%w): is it running, with this configuration?", cfg.Admin.Address, reason(err))
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		if err != nil {
			return 0, nil, fmt.Errorf("read the gateway's answer: %w", err)
		}
		return resp.StatusCode, body, nil
	}
	return &operator{base: base, token: token, do: do, close: func() error { client.CloseIdleConnections(); return nil }}, nil
}

// reason is an error without the URL that the client put before it.
func reason(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// offline serves the admin API of a store that no gateway has open.
func offline(storage *server.Storage, log *slog.Logger) (*operator, error) {
	const token = "offline" // the handler has no other caller
	api, err := admin.New(admin.Config{Token: token, Storage: storage, Log: log})
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	do := func(r *http.Request) (int, []byte, error) {
		w := &answered{header: http.Header{}, status: http.StatusOK}
		api.ServeHTTP(w, r)
		return w.status, w.body.Bytes(), nil
	}
	return &operator{base: "http://offline", token: token, do: do, close: storage.Close}, nil
}

// answered keeps what a handler answers.
type answered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answered) Header() http.Header         { return w.header }
func (w *answered) WriteHeader(status int)      { w.status = status }
func (w *answered) Write(b []byte) (int, error) { return w.body.Write(b) }

// call makes one call and reads its answer into out.
func (o *operator) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, o.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+o.token)
	status, answer, err := o.do(r)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var p admin.Problem
		if json.Unmarshal(answer, &p) == nil && p.Detail != "" {
			return errors.New(p.Detail)
		}
		return fmt.Errorf("the gateway answered %d", status)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// with runs f connected.
func (a *App) with(p place, needsRunning bool, f func(*operator) error) (err error) {
	o, err := a.operate(p, needsRunning)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	return f(o)
}

type reloadCommand struct {
	place
}

// Run has the running gateway load its files again and says what came of it.
func (c *reloadCommand) Run(a *App) error {
	return a.with(c.place, true, func(o *operator) error {
		var status server.Status
		if err := o.call(a.Context, http.MethodPost, "/v1/reload", nil, &status); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.Stdout, "applied %s\n", status.Config[:12])
		return err
	})
}
