package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/vault"
)

// userHeader is the user of the system who calls, as the command line says. Whoever has the token could say anything, so it
// is a detail of the entry and not its actor.
const userHeader = "Postern-Uid"

// actKey is where a call finds its act in the request's context.
type actKey struct{}

// recorded makes of a call that changes something one that is in the audit log, also when it is refused. What can not be
// recorded is not done.
func (a *API) recorded(action string, call func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		e := audit.Entry{Actor: a.actor(r), Action: action, Subject: "gateway", Detail: map[string]string{}}
		id, key := r.PathValue("account"), r.PathValue("k")
		switch {
		case key != "":
			e.Subject, e.Detail["account"] = audit.Subject(key), audit.Subject(id)
		case id != "":
			e.Subject = audit.Subject(id)
		}
		if uid, err := strconv.ParseUint(r.Header.Get(userHeader), 10, 32); err == nil && a.config.Actor == "" {
			e.Detail["uid"] = strconv.FormatUint(uid, 10)
		}
		act, err := a.config.Storage.Audit.Begin(r.Context(), e)
		if err != nil {
			a.config.Log.ErrorContext(r.Context(), "not in the audit log, and so not done", "error", err)
			return nil, refuse(http.StatusServiceUnavailable, "unavailable", "The audit log can not record anything now, so nothing was done.")
		}
		result, err := call(r.WithContext(context.WithValue(r.Context(), actKey{}, act)))
		act.Entry.Outcome, act.Entry.Reason = outcomeOf(err)
		if err == nil {
			describeResult(&act.Entry, result)
		}
		if err := act.End(r.Context()); err != nil { // the next start makes an entry of it, with the outcome unknown
			a.config.Log.ErrorContext(r.Context(), "not in the audit log", "error", err)
		}
		return result, err
	}
}

// detail adds to the entry of the call under way: a word, a number or an id.
func detail(r *http.Request, name, value string) {
	if act, ok := r.Context().Value(actKey{}).(*audit.Act); ok {
		act.Entry.Detail[name] = value
	}
}

// actor is who calls.
func (a *API) actor(r *http.Request) string {
	switch {
	case a.config.Actor != "":
		return a.config.Actor
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return "certificate:" + hex.EncodeToString(sum[:8])
	case a.config.Token != "":
		return "token:" + a.config.Storage.Audit.Fingerprint(a.config.Token)
	}
	return "unknown"
}

// outcomeOf tells what became of a call by its error.
func outcomeOf(err error) (audit.Outcome, string) {
	no := refusalOf(err)
	switch {
	case err == nil:
		return audit.Done, ""
	case no == nil:
		return audit.Failed, "internal"
	case no.status >= http.StatusInternalServerError:
		return audit.Failed, no.code
	}
	return audit.Refused, no.code
}

// describeResult adds what a call made or moved.
func describeResult(e *audit.Entry, result any) {
	switch v := result.(type) {
	case Account:
		e.Subject = audit.Subject(v.ID)
	case Key:
		e.Subject, e.Detail["account"] = audit.Subject(v.ID), audit.Subject(v.Account)
	case Entry:
		e.Detail["amount"], e.Detail["entry"] = v.Amount.String(), strconv.FormatUint(v.Seq, 10)
	case server.Status:
		e.Detail["config"] = v.Config[:12]
	}
}

// refusalOf is what the caller is told about an error; nil for what is no mistake of the caller's.
func refusalOf(err error) *refusal {
	var no *refusal
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, account.ErrNotFound), errors.Is(err, ledger.ErrAccount):
		return &refusal{http.StatusNotFound, "not_found", "There is no such account or key."}
	case errors.Is(err, ledger.ErrInvalid), errors.Is(err, account.ErrInvalid), errors.Is(err, exchange.ErrAmount):
		return &refusal{http.StatusBadRequest, "invalid", err.Error()}
	case errors.Is(err, account.ErrRevoked), errors.Is(err, account.ErrExpired), errors.Is(err, account.ErrDisabled), errors.Is(err, account.ErrTooMany), errors.Is(err, vault.ErrGiven):
		return &refusal{http.StatusConflict, "conflict", err.Error()}
	case errors.Is(err, ledger.ErrKey):
		return &refusal{http.StatusConflict, "key_used", "The key was used for another movement."}
	case errors.Is(err, ledger.ErrUnavailable):
		return &refusal{http.StatusServiceUnavailable, "unavailable", "The ledger can not record anything now."}
	}
	return nil
}

// denied records that somebody was not let in.
func (a *API) denied(r *http.Request, reason string) {
	err := a.config.Storage.Audit.Seldom(r.Context(), audit.Entry{Actor: "unknown", Action: "admin.deny", Subject: "gateway", Outcome: audit.Refused, Reason: reason})
	if err != nil {
		a.config.Log.ErrorContext(r.Context(), "not in the audit log", "error", err)
	}
}

// Action is an entry of the audit log.
type Action struct {
	Seq     uint64            `json:"seq"`
	Time    time.Time         `json:"time"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Subject string            `json:"subject"`
	Outcome audit.Outcome     `json:"outcome"`
	Reason  string            `json:"reason,omitempty"`
	Detail  map[string]string `json:"detail,omitempty"`
	Hash    string            `json:"hash"`
}

// Actions is a page of the audit log, the newest first.
type Actions struct {
	Entries []Action `json:"entries"`
	Next    uint64   `json:"next,omitempty"` // what before asks for the page after it
}

// audit is a page of the audit log: actor, action, subject, from, to, before, limit.
func (a *API) audit(r *http.Request) (any, error) {
	v := r.URL.Query()
	f := audit.Filter{Actor: v.Get("actor"), Action: v.Get("action"), Subject: v.Get("subject"), Limit: 100}
	var err error
	if f.From, f.To, err = between(v); err != nil {
		return nil, err
	}
	if s := v.Get("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil || f.Limit < 1 || f.Limit > audit.MaxList {
			return nil, refuse(http.StatusBadRequest, "invalid", "limit is 1 to %d.", audit.MaxList)
		}
	}
	if s := v.Get("before"); s != "" {
		if f.Before, err = strconv.ParseUint(s, 10, 64); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "before is the number of an entry.")
		}
	}
	p, err := a.config.Storage.Audit.List(r.Context(), f)
	if err != nil {
		return nil, err
	}
	out := Actions{Entries: []Action{}, Next: p.Next}
	for _, e := range p.Entries {
		out.Entries = append(out.Entries, Action{
			Seq: e.Seq, Time: e.Time, Actor: e.Actor, Action: e.Action, Subject: e.Subject, Outcome: e.Outcome, Reason: e.Reason, Detail: e.Detail, Hash: hex.EncodeToString(e.Sum[:]),
		})
	}
	return out, nil
}

// AuditProof is what reading the whole audit log found.
type AuditProof struct {
	OK       bool          `json:"ok"`
	Entries  uint64        `json:"entries"`
	First    uint64        `json:"first"`
	Retired  uint64        `json:"retired"` // the last that is not kept any more
	Mark     string        `json:"mark"`    // of the last entry; noted elsewhere, it proves later that the log still holds it
	Begun    int           `json:"begun"`   // actions under way
	Problems []AuditDefect `json:"problems"`
	Omitted  int           `json:"omitted,omitempty"`
}

// AuditDefect is something that is wrong with it.
type AuditDefect struct {
	Entry uint64 `json:"entry,omitempty"` // the first entry that it is about
	Kind  string `json:"kind"`
	Text  string `json:"text"`
}

// verifyAudit proves the audit log; mark is one from an earlier day.
func (a *API) verifyAudit(r *http.Request) (any, error) {
	mark, err := audit.ParseMark(r.URL.Query().Get("mark"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid", "mark is %s.", err)
	}
	rep, err := a.config.Storage.Audit.Verify(r.Context(), mark)
	if err != nil {
		return nil, err
	}
	out := AuditProof{OK: rep.OK(), Entries: rep.Entries, First: rep.First, Retired: rep.Retired, Mark: rep.Head.String(), Begun: rep.Begun, Problems: []AuditDefect{}, Omitted: rep.Omitted}
	for _, p := range rep.Problems {
		out.Problems = append(out.Problems, AuditDefect(p))
	}
	return out, nil
}

// rotateVault gives the vault a new master key.
func (a *API) rotateVault(r *http.Request) (any, error) {
	v := a.config.Storage.Vault
	if err := v.Rotate(r.Context()); err != nil {
		return nil, err
	}
	return VaultState{Owners: v.Owners()}, nil
}

// VaultState is what there is in the vault.
type VaultState struct {
	Owners int `json:"owners"` // who have a key
}
