// Package reception is what people and the rest of the gateway meet at: its main type is Desk, the directory of people and
// the mail office as an accounts block wants them, over the gateway's own accounts, ledger and vault.
package reception

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/person/settings"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Config configures a Desk. All of it is required but Audit.
type Config struct {
	Store    state.Store
	Vault    *vault.Vault
	Accounts *account.Directory
	Ledger   *ledger.Ledger
	Settings *settings.Settings
	Leave    func(ctx context.Context, account string) error // removes all that is kept for an account that nobody is left in; once more is no error
	Audit    *audit.Log                                      // nil: nobody is told
	Log      *slog.Logger
}

// Desk is the people of a gateway and their mail. It is safe for concurrent use.
type Desk struct {
	People   *person.Directory
	Mail     *mail.Office
	settings *settings.Settings
	policies atomic.Pointer[[]*notice.Edition]
}

// Open reads the people and the mail that waits. Nothing is sent before Start.
func Open(ctx context.Context, c Config) (*Desk, error) {
	d := &Desk{settings: c.Settings}
	d.Publish(nil)
	m := c.Settings.Mail
	var err error
	d.Mail, err = mail.Open(ctx, mail.Config{
		Store: c.Store, Vault: c.Vault.Drawer("mail"), Transport: transport(m), From: m.From, Public: c.Settings.Public, Service: c.Settings.Service,
		Queue: m.Queue, PerRecipient: m.PerRecipient, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	d.People, err = person.Open(ctx, person.Config{
		Store: c.Store, Vault: c.Vault.Drawer("person"), Mail: d.Mail, Accounts: books{c.Accounts, c.Ledger, c.Leave}, Settings: c.Settings,
		Policy: d.policy, Audit: told(c), Log: c.Log,
	})
	if err != nil {
		return nil, errors.Join(err, d.Mail.Close())
	}
	return d, nil
}

// told puts what people do into the audit log. What is refused may be anybody's doing, any number of times.
func told(c Config) func(context.Context, person.Event) {
	if c.Audit == nil {
		return nil
	}
	return func(ctx context.Context, e person.Event) {
		entry := audit.Entry{Actor: cmp.Or(e.Actor, "unknown"), Action: e.Action, Subject: audit.Subject(e.Subject), Outcome: audit.Outcome(e.Outcome), Reason: e.Reason}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		var err error
		if entry.Outcome == audit.Done {
			_, err = c.Audit.Append(ctx, entry)
		} else {
			err = c.Audit.Seldom(ctx, entry)
		}
		if err != nil {
			c.Log.ErrorContext(ctx, "not in the audit log", "error", err)
		}
	}
}

// transport is how mail leaves.
func transport(m settings.Mail) mail.Transport {
	if m.SMTP == nil {
		return mail.Outbox{Dir: m.Outbox}
	}
	s := m.SMTP
	return &mail.SMTP{Host: s.Host, Port: s.Port, Security: s.TLS, User: s.User, Password: s.Password, CA: s.CA, Timeout: s.Timeout}
}

// Start begins to send mail.
func (d *Desk) Start() error {
	if s := d.settings.Mail.SMTP; s != nil && s.Withheld {
		return fmt.Errorf("%s: the password of the mail server is a secret that can not be read here", d.settings.Range)
	}
	d.Mail.Start()
	return nil
}

// Publish says which versions of the policy there are, as notice.Archive lists them: that in force is the one that people
// are asked to accept.
func (d *Desk) Publish(list []*notice.Edition) { d.policies.Store(&list) }

// policy is the version in force, or "".
func (d *Desk) policy() string {
	e := notice.InForce(*d.policies.Load(), time.Now())
	if e == nil {
		return ""
	}
	return e.Version
}

// Close ends what is under way. Mail that waits is sent in the next run.
func (d *Desk) Close() error { return errors.Join(d.People.Close(), d.Mail.Close()) }

// books are the gateway's accounts as people know them.
type books struct {
	accounts *account.Directory
	ledger   *ledger.Ledger
	leave    func(ctx context.Context, account string) error
}

// Create makes an account, with its place in the ledger.
func (b books) Create(ctx context.Context, name string) (string, error) {
	a, err := b.accounts.Create(ctx, name)
	if err != nil {
		return "", err
	}
	return a.ID, b.ledger.OpenAccount(ctx, a.ID)
}

// Name is the name of an account that is not closed.
func (b books) Name(ctx context.Context, id string) (string, error) {
	a, err := b.accounts.Get(ctx, id)
	if err == nil && a.Status == account.Closed {
		err = fmt.Errorf("%w: %s is closed", account.ErrNotFound, id)
	}
	return a.Name, err
}

// Close refuses an account's keys for good and removes what is kept for it.
func (b books) Close(ctx context.Context, id string) error { return b.leave(ctx, id) }
