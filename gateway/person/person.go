// Package person is the people who sign in: its main type is Directory, which knows their addresses, passwords and second
// factors, their sessions, and their parts in accounts.
//
// What is personal is sealed under a key of the person's own; the store's keys hold random ids and HMACs alone. Tokens,
// session ids and recovery codes are 80 to 256 random bits and stored as HMACs. What a mailed link needs to know travels
// with it: the store has it encrypted under the link's own token, which it does not have.
//
// No answer tells whether an address is registered, and neither does the work that is done for it: a sign-in computes one
// password hash whoever is asked for, and whoever asks for a link causes one message, to an address that is known or not.
package person

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/factor"
	"github.com/postern-gateway/postern/gateway/person/password"
	"github.com/postern-gateway/postern/gateway/person/session"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/person/team"
	"github.com/postern-gateway/postern/gateway/person/throttle"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a Directory. All others are wrapped around one of these, a password.Weakness, password.ErrBusy, or the store's.
var (
	ErrCredentials = errors.New("address or password is wrong")
	ErrCode        = factor.ErrWrong
	ErrToken       = token.ErrOver
	ErrSession     = session.ErrOver
	ErrStale       = errors.New("this needs a fresh sign-in") // see Reauthenticate
	ErrLocked      = errors.New("this person is locked")
	ErrSignup      = team.ErrSignup
	ErrTaken       = errors.New("the address is registered already") // said only to who has proven that it is theirs
	ErrPolicy      = errors.New("the policy in effect was not accepted")
	ErrNotFound    = team.ErrNotFound
	ErrForbidden   = team.ErrForbidden
	ErrLastOwner   = team.ErrLastOwner
	ErrInvalid     = team.ErrInvalid
	ErrTooMany     = team.ErrTooMany
	ErrClosed      = errors.New("directory of people is closed")
)

// Throttled is the error of who tries too often.
type Throttled struct {
	After time.Duration // how long to wait
}

// Error says how long.
func (t Throttled) Error() string {
	return fmt.Sprintf("too many tries: wait %v", t.After.Round(time.Second))
}

// Session is somebody signed in on some device.
type Session = session.Session

// Status is whether a person may sign in.
type Status string

// The states of a person.
const (
	Active Status = "active"
	Locked Status = "locked" // by an operator or a sign of abuse; sessions are over
)

// Person is what is known of somebody, without secrets.
type Person struct {
	ID       string       `json:"id"` // "pers_" and 16 letters and digits, random
	Email    string       `json:"email"`
	Name     string       `json:"name,omitempty"`
	Language string       `json:"language"`
	Created  time.Time    `json:"created"`
	Status   Status       `json:"status"`
	Password bool         `json:"password"` // has one
	TOTP     bool         `json:"totp"`     // has an authenticator app
	Passkeys []Passkey    `json:"passkeys,omitempty"`
	Recovery int          `json:"recovery_codes"` // left
	Accepted []Acceptance `json:"accepted,omitempty"`
	Consents []Consent    `json:"consents,omitempty"`
}

// Acceptance is that somebody accepted a version of the policy.
type Acceptance struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
}

// Consent is one decision about a purpose that needs it; the last of a purpose holds.
type Consent struct {
	Purpose string    `json:"purpose"` // Communicate or Training
	Given   bool      `json:"given"`   // false: withdrawn
	Time    time.Time `json:"time"`
}

// The purposes that need consent.
const (
	Communicate = "communicate" // news by mail
	Training    = "training"    // use of what somebody sends to train models
)

// Consented reports whether the last decision about a purpose was yes.
func (p *Person) Consented(purpose string) bool {
	given := false
	for _, c := range p.Consents {
		if c.Purpose == purpose {
			given = c.Given
		}
	}
	return given
}

// Client is who speaks to a page.
type Client struct {
	Address netip.Addr // as the gateway sees it
	Agent   string     // what the browser calls itself
	Device  string     // the device token of an earlier sign-in, see SignedIn; may be empty or wrong
}

// Event is something that a person did or that was tried in a person's name, by ids alone.
type Event struct {
	Actor   string // a person's id; "" where nobody is signed in
	Action  string // such as "person.signin"
	Subject string // a person's, account's or invitation's id; "" where it is not known
	Outcome string // "done" or "refused"
	Reason  string // one word where it was refused
}

// Config configures a Directory. Store, Vault, Mail, Accounts and Settings are required.
type Config struct {
	Store    state.Store
	Vault    mail.Vault
	Mail     *mail.Office
	Accounts team.Accounts
	Settings *settings.Settings
	Policy   func() string                // version of the policy in effect; nil or "": there is none to accept
	Audit    func(context.Context, Event) // nil: nobody is told
	Log      *slog.Logger                 // default: slog.Default
	Now      func() time.Time             // default time.Now
}

// Bounds of what a person may have or send.
const (
	MaxPasskeys  = 20  // of one person
	maxDecisions = 200 // consents and acceptances that are kept
)

// The records. Values are JSON, with what is personal sealed.
const (
	secretKey     = "person/secret"
	personPrefix  = "person/p/" // + id
	emailPrefix   = "person/e/" // + HMAC of an address; the id
	removedPrefix = "person/x/" // + id, while a removal is not complete
)

// Directory is the people of a store. It is safe for concurrent use.
type Directory struct {
	c          Config
	settings   *settings.Settings
	log        *slog.Logger
	now        func() time.Time
	mint       *token.Mint
	sessions   *session.Book
	teams      *team.Teams
	hasher     *password.Hasher
	throttle   *throttle.Throttle
	passkeys   *factor.Party    // nil: the public URL's host can have none
	ceremonies token.Ceremonies // of people who are known
	strangers  token.Ceremonies // of sign-ins by passkey alone

	// change is held by whoever writes, from the check to the store. No password is hashed under it.
	change sync.Mutex

	mu     sync.Mutex // guards what follows; held only for moments
	closed bool
}

// Open reads the directory. The store, the vault and the mail must stay open until Close returned.
func Open(ctx context.Context, c Config) (*Directory, error) {
	d := &Directory{c: c, settings: c.Settings, log: c.Log, now: c.Now}
	if c.Store == nil || c.Vault == nil || c.Mail == nil || c.Accounts == nil || c.Settings == nil {
		return nil, fmt.Errorf("open people: %w: store, vault, mail, accounts and settings are needed", ErrInvalid)
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	if d.now == nil {
		d.now = time.Now
	}
	p, t := c.Settings.Passwords, c.Settings.Throttle
	d.hasher = password.New(password.Config{Cost: password.Cost{Memory: p.Memory, Passes: p.Passes}, Concurrent: p.Concurrent})
	d.throttle = throttle.New(throttle.Config{
		Pair:    throttle.Rule{Free: t.Person, Base: time.Second, Most: t.Wait},
		Network: throttle.Rule{Free: t.Network, Base: time.Second, Most: t.Wait},
		Name:    throttle.Rule{Free: 10 * t.Person, Base: time.Second, Most: min(time.Minute, t.Wait)},
		Now:     d.now,
	})
	d.passkeys = factor.NewParty(c.Settings.Public, c.Settings.Service)
	d.ceremonies.Now, d.strangers.Now = d.now, d.now
	if err := d.load(ctx); err != nil {
		return nil, fmt.Errorf("open people: %w", err)
	}
	w := c.Settings.Sessions
	d.sessions = session.Open(session.Config{Mint: d.mint, Vault: c.Vault, Change: &d.change, Idle: w.Idle, Absolute: w.Absolute, Most: w.Most, Log: d.log})
	d.teams = team.New(team.Config{
		Mint: d.mint, Vault: c.Vault, Mail: c.Mail, Accounts: c.Accounts, People: roster{d}, Change: &d.change,
		Open: c.Settings.Signup == settings.Open, Invitation: c.Settings.Tokens.Invitation, Tell: d.tell,
	})
	return d, nil
}

// load reads the secret, makes it the first time, and completes removals that a crash cut short.
func (d *Directory) load(ctx context.Context) error {
	secret, err := d.c.Store.Get(ctx, []byte(secretKey))
	if errors.Is(err, state.ErrNotFound) {
		for _, err := range d.c.Store.Scan(ctx, []byte(personPrefix), nil) {
			if err != nil {
				return err
			}
			return errors.New("there are people but the secret their addresses are found by is gone")
		}
		secret = make([]byte, sha256.Size)
		rand.Read(secret) // never fails
		var b state.Batch
		b.Put([]byte(secretKey), secret)
		err = d.c.Store.Commit(ctx, &b)
	}
	if err != nil {
		return err
	}
	if len(secret) != sha256.Size {
		return errors.New("the secret is damaged")
	}
	d.mint = &token.Mint{Store: d.c.Store, Secret: secret, Now: d.now}
	var half []string
	for e, err := range d.c.Store.Scan(ctx, []byte(removedPrefix), nil) {
		if err != nil {
			return err
		}
		half = append(half, string(e.Key[len(removedPrefix):]))
	}
	for _, id := range half {
		if _, err := d.resume(ctx, id, nil); err != nil {
			return err
		}
	}
	return nil
}

// Close writes when sessions were last used. Later calls give ErrClosed.
func (d *Directory) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return ErrClosed
	}
	d.closed = true
	d.mu.Unlock()
	return d.sessions.Close()
}

// begin takes the right to write; the caller calls what it returns.
func (d *Directory) begin(ctx context.Context) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.change.Lock()
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		d.change.Unlock()
		return nil, ErrClosed
	}
	return d.change.Unlock, nil
}

// tell tells the audit log.
func (d *Directory) tell(ctx context.Context, actor, action, subject string, err error) {
	if d.c.Audit == nil {
		return
	}
	e := Event{Actor: actor, Action: action, Subject: subject, Outcome: "done"}
	if err != nil {
		e.Outcome, e.Reason = "refused", reason(err)
	}
	d.c.Audit(ctx, e)
}

// reason is one word for an error.
func reason(err error) string {
	if w := password.WeaknessOf(err); w != "" {
		return "weak"
	}
	if _, ok := errors.AsType[Throttled](err); ok {
		return "throttled"
	}
	for _, w := range []struct {
		is   error
		word string
	}{
		{ErrCredentials, "credentials"}, {ErrCode, "code"}, {ErrToken, "token"}, {ErrSession, "session"}, {ErrStale, "stale"},
		{ErrLocked, "locked"}, {ErrSignup, "closed"}, {ErrTaken, "taken"}, {ErrPolicy, "policy"}, {ErrNotFound, "unknown"},
		{ErrForbidden, "forbidden"}, {ErrLastOwner, "last_owner"}, {ErrInvalid, "invalid"}, {ErrTooMany, "limit"}, {password.ErrBusy, "busy"},
	} {
		if errors.Is(err, w.is) {
			return w.word
		}
	}
	return "fault"
}
