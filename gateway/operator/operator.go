// Package operator is the commands of those who run a gateway: accounts, money, usage, the audit log, reload. They speak to the
// admin API, of the running gateway or in this process. The package's main type is Shell, what they may use of the
// program.
package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/state"
)

// Shell is what a command may use of the world outside.
type Shell struct {
	Context  context.Context // ends at the first interrupt
	Stdout   io.Writer
	Stderr   io.Writer
	Backends []state.Backend
	Load     func(dir string, o config.Options) (*config.Config, error) // the configuration; its diagnostics are told
}

// Print shows a result as JSON or as a table.
func Print(to io.Writer, asJSON bool, v any, table func(*tabwriter.Writer)) error {
	if asJSON {
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

func (s *Shell) print(asJSON bool, v any, table func(*tabwriter.Writer)) error {
	return Print(s.Stdout, asJSON, v, table)
}

// place says which gateway a command is about.
type place struct {
	Dir string            `default:"." help:"Folder with config.hcl; by default the current one." type:"existingdir"`
	Var map[string]string `help:"Value of a variable block; repeatable. Otherwise it is read from POSTERN_VAR_NAME." placeholder:"NAME=VALUE"`
}

// operate connects to the gateway of a folder: to the running one, or, when none has the store open, to the store itself
// through the same API in this process.
func (s *Shell) operate(p place, needsRunning bool) (*admin.Client, error) {
	cfg, err := s.Load(p.Dir, config.Options{Variables: p.Var, Secrets: true, Elsewhere: true})
	if err != nil {
		return nil, err
	}
	if !needsRunning && cfg.State.Dir != "" { // what is kept in memory is the running gateway's alone
		if !cfg.State.Arguments.IsWhollyKnown() {
			return nil, fmt.Errorf("%s: the state block uses a secret that can not be read here", cfg.State.Range)
		}
		log := slog.New(slog.NewTextHandler(s.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		storage, err := server.OpenStorage(s.Context, s.Backends, cfg, log)
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
	api, err := admin.New(admin.Config{Token: "local", Actor: actor(), Storage: storage, Log: log}) // it has no other caller
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	return api.Local(), nil
}

// actor is the user of the system who runs this, by number: names are nobody's business.
func actor() string {
	uid := os.Getuid()
	if uid < 0 { // Windows has none
		return "unknown"
	}
	return "uid:" + strconv.Itoa(uid)
}

// with runs f connected.
func (s *Shell) with(p place, needsRunning bool, f func(*admin.Client) error) (err error) {
	o, err := s.operate(p, needsRunning)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return f(o)
}

// Reload is the command that has the running gateway load its files again.
type Reload struct {
	place
}

// Run has the running gateway load its files again and says what came of it.
func (c *Reload) Run(s *Shell) error {
	return s.with(c.place, true, func(o *admin.Client) error {
		var status server.Status
		if err := o.Call(s.Context, http.MethodPost, "/v1/reload", nil, &status); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.Stdout, "applied %s\n", status.Config[:12])
		return err
	})
}
