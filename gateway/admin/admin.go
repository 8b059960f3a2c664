// Package admin is the operators' API: health, metrics, what is configured and how it fares, accounts, keys and the ledger.
// Its main type is API, an http.Handler. It reads and acts; it never edits the configuration, whose truth is the files.
package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/opendsr"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// maxBody bounds a request's body, in octets.
const maxBody = 64 << 10

// Config is what an API acts on.
type Config struct {
	Token   string          // every call but /health and /ready must bear it; required unless Mutual
	Mutual  bool            // the listener asks for client certificates, which stand in for a token
	Actor   string          // who calls, for the audit log; empty: whose token or certificate it is
	Storage *server.Storage // accounts and ledger, and the audit log
	Log     *slog.Logger

	// Of a running gateway alone; without them the calls that need them answer 503.
	Server  *server.Server
	Metrics *telemetry.Metrics
	Reload  func(ctx context.Context) error // loads the files again and applies them
}

// API is the operators' API. It is safe for concurrent use.
type API struct {
	config Config
	token  [sha256.Size]byte
	mux    *http.ServeMux
}

// New makes the API. An empty token is refused: nobody may operate a gateway without one.
func New(c Config) (*API, error) {
	if c.Token == "" && !c.Mutual {
		return nil, errors.New("the admin API needs a token")
	}
	a := &API{config: c, token: sha256.Sum256([]byte(c.Token)), mux: http.NewServeMux()}
	a.mux.HandleFunc("GET /health", a.health)
	a.mux.HandleFunc("GET /ready", a.ready)
	for pattern, call := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":                     a.status,
		"GET /v1/config":                     a.configuration,
		"GET /v1/plugins":                    a.plugins,
		"GET /v1/upstreams":                  a.upstreams,
		"GET /v1/overload":                   a.overload,
		"GET /v1/accounts":                   a.accounts,
		"GET /v1/accounts/{account}":         a.account,
		"GET /v1/accounts/{account}/keys":    a.keys,
		"GET /v1/accounts/{account}/balance": a.balance,
		"GET /v1/accounts/{account}/entries": a.entries,
		"GET /v1/accounts/{account}/usage":   a.accountUsage,
		"GET /v1/accounts/{account}/calls":   a.calls,
		"GET /v1/usage":                      a.usage,
		"GET /v1/usage/verify":               a.verifyUsage,
		"GET /v1/ledger":                     a.balances,
		"GET /v1/ledger/verify":              a.verify,
		"GET /v1/audit":                      a.audit,
		"GET /v1/audit/verify":               a.verifyAudit,
		"GET /v1/rights":                     a.rights,
		"GET /v1/rights/key":                 a.rightsKey,
		"GET /v1/rights/{request}":           a.right,
		"GET /v1/retention":                  a.retention,
		"GET /v1/opendsr/discovery":          a.opendsrDiscovery,
		"GET /v1/opendsr/requests/{outside}": a.opendsrStatus,
	} {
		a.mux.Handle(pattern, a.guard(answer(c.Log, call)))
	}
	for pattern, change := range a.changes() {
		a.mux.Handle(pattern, a.guard(answer(c.Log, a.recorded(change.action, change.call))))
	}
	if c.Metrics != nil {
		a.mux.Handle("GET /metrics", a.guard(c.Metrics.Handler()))
	}
	a.mux.Handle("/", a.guard(http.HandlerFunc(a.unknown)))
	return a, nil
}

// change is a call that changes something, and what the audit log says was done.
type change struct {
	action string
	call   func(*http.Request) (any, error)
}

// changes are all calls but those that only read.
func (a *API) changes() map[string]change {
	return map[string]change{
		"POST /v1/reload":                             {"gateway.reload", a.reload},
		"POST /v1/accounts":                           {"account.create", a.createAccount},
		"POST /v1/accounts/{account}/disable":         {"account.disable", a.disableAccount},
		"POST /v1/accounts/{account}/enable":          {"account.enable", a.enableAccount},
		"POST /v1/accounts/{account}/keys":            {"key.create", a.createKey},
		"PATCH /v1/accounts/{account}/keys/{k}":       {"key.change", a.changeKey},
		"DELETE /v1/accounts/{account}/keys/{k}":      {"key.revoke", a.revokeKey},
		"POST /v1/accounts/{account}/keys/{k}/rotate": {"key.rotate", a.rotateKey},
		"POST /v1/accounts/{account}/credits":         {"ledger.credit", a.credit},
		"POST /v1/accounts/{account}/refunds":         {"ledger.refund", a.refund},
		"POST /v1/vault/rotate":                       {"vault.rotate", a.rotateVault},
		"POST /v1/rights":                             {"rights.ask", a.askRight},
		"POST /v1/rights/{request}/cancel":            {"rights.cancel", a.cancelRight},
		"POST /v1/rights/{request}/decide":            {"rights.decide", a.decideRight},
		"POST /v1/retention/sweep":                    {"retention.sweep", a.sweep},
		"POST /v1/opendsr/requests":                   {"rights.ask", a.opendsrAsk},
		"DELETE /v1/opendsr/requests/{outside}":       {"rights.cancel", a.opendsrCancel},
	}
}

// methods are all that any call is made by.
var methods = [...]string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete}

// unknown answers for paths that are none, and for methods that a path does not take.
func (a *API) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range methods {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "/" && pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		problem(w, http.StatusNotFound, "no_such_call", "There is no such call.")
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	problem(w, http.StatusMethodNotAllowed, "method_not_allowed", "The call is made by "+strings.Join(allowed, " or ")+".")
}

// ServeHTTP answers one call.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	a.mux.ServeHTTP(w, r)
}

// guard lets through who bears the token. Browsers are kept out: a page elsewhere must not reach a loopback port with a
// person's help (DNS rebinding), and no browser has business here.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A page whose name was made to point here is of the same site for its browser.
		if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site != "" && site != "none" {
			a.denied(r, "browser")
			problem(w, http.StatusForbidden, "browser", "The admin API is not for browsers.")
			return
		}
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		presented := sha256.Sum256([]byte(token))
		if a.config.Token != "" && (!ok || subtle.ConstantTimeCompare(presented[:], a.token[:]) != 1) {
			a.denied(r, "unauthorized")
			w.Header().Set("WWW-Authenticate", `Bearer realm="postern"`)
			problem(w, http.StatusUnauthorized, "unauthorized", "The admin API needs its token.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// health: the process answers.
func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready: it serves, and paid calls can be recorded.
func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	if a.config.Server == nil {
		write(w, http.StatusServiceUnavailable, map[string]string{"status": "not serving"})
		return
	}
	if err := a.config.Server.Ready(r.Context()); err != nil {
		a.config.Log.WarnContext(r.Context(), "not ready", "error", err)
		write(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
		return
	}
	write(w, http.StatusOK, map[string]string{"status": "ready"})
}

// refusal is an error the caller is told about.
type refusal struct {
	status int
	code   string
	detail string
}

func (r *refusal) Error() string { return r.detail }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status: status, code: code, detail: fmt.Sprintf(format, args...)}
}

// answer makes a handler of a call: its result is written as JSON, its error as a problem. What is not a mistake of the
// caller's is logged and not told.
func answer(log *slog.Logger, call func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result, err := call(r)
		no := refusalOf(err)
		switch {
		case err == nil:
			status := http.StatusOK
			if _, ok := result.(*opendsr.Received); ok {
				status = http.StatusCreated // OpenDSR section 7.3
			}
			write(w, status, result)
		case no != nil:
			if no.code == "unavailable" {
				w.Header().Set("Retry-After", "5")
			}
			problem(w, no.status, no.code, no.detail)
		default:
			log.ErrorContext(r.Context(), "admin call failed", "path", r.URL.Path, "error", err)
			problem(w, http.StatusInternalServerError, "internal", "The call failed; the log says why.")
		}
	})
}

func write(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		problem(w, http.StatusInternalServerError, "internal", "The answer can not be written.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have gone; there is nobody else to tell
}

// Problem is an answer that says what went wrong (RFC 9457), for those who read answers.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

func problem(w http.ResponseWriter, status int, code, detail string) {
	p := exchange.Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail}
	w.Header().Set("Content-Type", exchange.ProblemType)
	w.WriteHeader(status)
	_, _ = w.Write(append(p.JSON(""), '\n'))
}

// read takes a call's JSON body strictly: an unknown or repeated thing is a mistake worth telling.
func read(r *http.Request, into any) error {
	body, err := io.ReadAll(r.Body)
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "The body is longer than %d octets.", long.Limit)
	case err != nil:
		return refuse(http.StatusBadRequest, "invalid", "The body did not come to its end.")
	}
	if err := repeats(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "The body can not be read: %s.", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "invalid", "The body goes on after its end.")
	}
	return nil
}

// repeats refuses a body that is no object, and one that names a member twice: which of them counts would be a guess, and
// encoding/json takes names in capitals for the same.
func repeats(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return refuse(http.StatusBadRequest, "invalid", "The body must be a JSON object.")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil || !ok {
			return refuse(http.StatusBadRequest, "invalid", "The body can not be read: it is no JSON object.")
		}
		if name = strings.ToLower(name); seen[name] {
			return refuse(http.StatusBadRequest, "invalid", "The member %q is given twice.", name)
		}
		seen[name] = true
	}
	return nil
}

func (a *API) running() error {
	if a.config.Server == nil {
		return refuse(http.StatusServiceUnavailable, "not_running", "The gateway is not running.")
	}
	return nil
}

func (a *API) status(*http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	return a.config.Server.Status(), nil
}

func (a *API) plugins(*http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	return a.config.Server.Plugins(), nil
}

func (a *API) upstreams(*http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	return a.config.Server.Upstreams(), nil
}

func (a *API) overload(*http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	return a.config.Server.Overload(), nil
}

func (a *API) configuration(*http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	return describe(a.config.Server.Config()), nil
}

func (a *API) reload(r *http.Request) (any, error) {
	if err := a.running(); err != nil {
		return nil, err
	}
	if err := a.config.Reload(r.Context()); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "refused", "%s", err)
	}
	return a.config.Server.Status(), nil
}
