// Package console is the pages that people and operators use: its main type is Console, an http.Handler that a route with
// console = true serves through the gateway's own listeners. Pages are rendered here, work without a script and are better with
// one. What operators do goes through the admin API, so that it is checked and recorded in one place.
package console

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/console/history"
	"github.com/postern-gateway/postern/gateway/console/words"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// Config is what a Console shows and acts on.
type Config struct {
	Server  *server.Server
	Metrics *telemetry.Metrics
	Formats []provider.Format // that are compiled in
	Admin   *admin.Client     // acts for operators; nil: nobody can sign in
	Token   string            // that operators sign in with; empty: nobody can
	Actor   string            // who operators are in the audit log
	Log     *slog.Logger

	Files func(ctx context.Context) (*config.Config, error) // loads the files again, for their difference to what is in force; nil: not shown
	Now   func() time.Time                                  // default time.Now
}

// Console serves the pages. It is safe for concurrent use.
type Console struct {
	config  Config
	words   *words.Words
	pages   map[string]*layout
	assets  *assets
	mux     *http.ServeMux
	origin  *http.CrossOriginProtection
	history history.History
	doors   *sessions
	token   [sha256.Size]byte
	started time.Time

	proving sync.Mutex
	proof   proof
	ended   bool // Close was called: nothing new is begun

	alive context.Context //nolint:containedctx // of what runs beside the requests, until Close
	stop  context.CancelFunc
	work  sync.WaitGroup
}

// New makes a Console and begins to remember what is counted. Close ends that.
func New(c Config) (*Console, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Console{config: c, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), token: sha256.Sum256([]byte(c.Token)), started: c.Now()}
	k.doors = newSessions(c.Now)
	var err error
	if k.words, err = words.Load(); err != nil {
		return nil, err
	}
	if k.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if k.pages, err = loadPages(); err != nil {
		return nil, err
	}
	for pattern, h := range map[string]page{
		"GET /{$}":            (*request).home,
		"GET /models":         (*request).models,
		"GET /models/{model}": (*request).model,
		"GET /apis":           (*request).apis,
		"GET /status":         (*request).status,
		"GET /privacy":        (*request).policy,
		"GET /terms":          (*request).terms,
		"POST /preferences":   (*request).prefer,

		"GET /operator/sign-in":  (*request).signInPage,
		"POST /operator/sign-in": (*request).signIn,
	} {
		k.mux.Handle(pattern, k.serve(h, false))
	}
	for pattern, h := range map[string]page{
		"POST /operator/sign-out":                           (*request).signOut,
		"GET /operator":                                     (*request).traffic,
		"GET /operator/routes":                              (*request).routes,
		"GET /operator/plugins":                             (*request).plugins,
		"GET /operator/upstreams":                           (*request).upstreams,
		"GET /operator/models":                              (*request).prices,
		"GET /operator/files":                               (*request).files,
		"POST /operator/files":                              (*request).reload,
		"GET /operator/audit":                               (*request).audit,
		"GET /operator/ledger":                              (*request).ledger,
		"POST /operator/ledger":                             (*request).prove,
		"GET /operator/accounts":                            (*request).accounts,
		"POST /operator/accounts":                           (*request).createAccount,
		"GET /operator/accounts/{account}":                  (*request).account,
		"GET /operator/accounts/{account}/disable":          (*request).confirmDisable,
		"POST /operator/accounts/{account}/disable":         (*request).disable,
		"POST /operator/accounts/{account}/credit":          (*request).credit,
		"POST /operator/accounts/{account}/keys":            (*request).createKey,
		"GET /operator/accounts/{account}/keys/{k}/revoke":  (*request).confirmRevoke,
		"POST /operator/accounts/{account}/keys/{k}/revoke": (*request).revoke,
	} {
		k.mux.Handle(pattern, k.serve(h, true))
	}
	k.mux.HandleFunc("GET /assets/{file}", k.assets.serve)
	k.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		redirect(w, r, k.assets.path("icon.svg"))
	})
	k.mux.HandleFunc("GET /robots.txt", robots)
	k.mux.HandleFunc("GET /openapi.json", k.openapi)
	k.mux.Handle("/", k.serve((*request).missing, false))

	k.alive, k.stop = context.WithCancel(context.Background())
	k.sample()
	k.work.Go(k.remember)
	return k, nil
}

// Close ends what runs beside the requests.
func (k *Console) Close() {
	k.proving.Lock()
	k.ended = true
	k.proving.Unlock()
	k.stop()
	k.work.Wait()
}

// remember takes samples until Close.
func (k *Console) remember() {
	t := time.NewTicker(history.Every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			k.sample()
		case <-k.alive.Done():
			return
		}
	}
}

func (k *Console) sample() {
	totals, err := k.config.Metrics.Totals()
	if err != nil {
		k.config.Log.Warn("read what was counted, for the console", "error", err)
		return
	}
	k.history.Add(history.Take(k.config.Now(), &totals), k.states())
}

// states are how the models are now.
func (k *Console) states() map[string]history.State {
	upstreams := k.config.Server.Upstreams()
	states := map[string]history.State{}
	for _, m := range k.config.Server.Config().Models {
		usable, all := 0, 0
		for _, t := range m.Targets {
			for _, e := range upstreams[t.Upstream.Name] {
				all++
				if e.Usable {
					usable++
				}
			}
		}
		switch {
		case usable == 0:
			states[m.Name] = history.Bad
		case usable < all:
			states[m.Name] = history.Partial
		default:
			states[m.Name] = history.Good
		}
	}
	return states
}

// base is scheme://host[:port] of the console, from the configuration alone: what a request calls itself is not believed.
func (k *Console) base() string {
	c := k.config.Server.Config()
	if c.Console.URL != "" {
		return c.Console.URL
	}
	bound := k.config.Server.Addresses()
	for _, r := range c.Routes {
		if !r.Console {
			continue
		}
		for _, l := range r.Listeners {
			scheme, host := "http", "localhost"
			if l.TLS != nil {
				scheme = "https"
			}
			if h := r.Pattern.Host(); h != "" {
				host = h
			}
			return fmt.Sprintf("%s://%s:%d", scheme, host, bound[l.Name].Port())
		}
	}
	return "https://localhost"
}
