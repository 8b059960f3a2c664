package operator

import (
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Account is the command about accounts.
type Account struct {
	Create  accountCreate  `cmd:"" help:"Make an account and print its id."`
	List    accountList    `cmd:"" help:"List accounts with their balances."`
	Disable accountDisable `cmd:"" help:"Refuse an account's keys, until it is enabled again."`
	Enable  accountEnable  `cmd:"" help:"Take the keys of an account again that was disabled."`
	Refund  accountRefund  `cmd:"" help:"Give back what a call was charged, or a part of it."`
	Key     keyCommand     `cmd:"" help:"API keys of an account."`
}

type accountCreate struct {
	place
	Name string `arg:"" help:"What the account is called."`
	JSON bool   `help:"Print JSON."`
}

// Run makes an account and prints its id.
func (c *accountCreate) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var made admin.Account
		if err := o.Call(s.Context, http.MethodPost, "/v1/accounts", map[string]string{"name": c.Name}, &made); err != nil {
			return err
		}
		return s.print(c.JSON, made, func(w *tabwriter.Writer) { fmt.Fprintln(w, made.ID) })
	})
}

type accountList struct {
	place
	JSON bool `help:"Print JSON."`
}

// Run lists accounts.
func (c *accountList) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var list []admin.Account
		if err := o.Call(s.Context, http.MethodGet, "/v1/accounts", nil, &list); err != nil {
			return err
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ID\tNAME\tSTATUS\tAVAILABLE\tHELD\tCREATED")
			for _, v := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\t%s\t%s\n", v.ID, v.Name, v.Status, v.Balance.Available, v.Balance.Currency, v.Balance.Held, v.Created.Format(time.DateTime))
			}
		})
	})
}

type accountStatus struct {
	place
	Account string `arg:"" help:"The account's id."`
	JSON    bool   `help:"Print JSON."`
}

type accountDisable struct{ accountStatus }

// Run refuses the account's keys until it is enabled again.
func (c *accountDisable) Run(s *Shell) error { return c.set(s, "disable") }

type accountEnable struct{ accountStatus }

// Run ends disable.
func (c *accountEnable) Run(s *Shell) error { return c.set(s, "enable") }

func (c *accountStatus) set(s *Shell, call string) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var v admin.Account
		if err := o.Call(s.Context, http.MethodPost, "/v1/accounts/"+url.PathEscape(c.Account)+"/"+call, nil, &v); err != nil {
			return err
		}
		return s.print(c.JSON, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is %s\n", v.ID, v.Status) })
	})
}

type accountRefund struct {
	place
	Account string `arg:"" help:"The account's id."`
	Charge  string `arg:"" help:"The charge's id: the REF of ledger entries, and the id of the call's receipt."`
	Amount  string `help:"A decimal, for a part of the charge; by default the whole of it."`
	Key     string `help:"What makes the refund unique, such as the ticket's number: the same key never refunds twice." required:""`
	Note    string `help:"Written on the entry."`
	JSON    bool   `help:"Print JSON."`
}

// Run gives a charge back.
func (c *accountRefund) Run(s *Shell) error {
	in := map[string]any{"charge": c.Charge, "key": c.Key, "note": c.Note}
	if c.Amount != "" {
		amount, err := exchange.ParseAmount(c.Amount)
		if err != nil {
			return err
		}
		in["amount"] = amount
	}
	return s.with(c.place, false, func(o *admin.Client) error {
		var e admin.Entry
		if err := o.Call(s.Context, http.MethodPost, "/v1/accounts/"+url.PathEscape(c.Account)+"/refunds", in, &e); err != nil {
			return err
		}
		return s.print(c.JSON, e, func(w *tabwriter.Writer) { fmt.Fprintf(w, "refunded %s, balance %s\n", e.Amount, e.Balance) })
	})
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateTime)
}
