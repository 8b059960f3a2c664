package operator

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Ledger is the command about money.
type Ledger struct {
	Credit  ledgerCredit  `cmd:"" help:"Pay into an account."`
	Balance ledgerBalance `cmd:"" help:"Show an account's balance, or all."`
	Entries ledgerEntries `cmd:"" help:"List an account's entries."`
	Verify  ledgerVerify  `cmd:"" help:"Read everything that is stored and prove that it adds up."`
}

type ledgerCredit struct {
	place
	Account string `arg:"" help:"The account's id."`
	Amount  string `arg:"" help:"A decimal in the ledger's currency, such as 12.50."`
	Key     string `help:"What makes the credit unique, such as the payment's id: the same key never credits twice." required:""`
	Note    string `help:"Written on the entry."`
}

// Run pays into an account.
func (c *ledgerCredit) Run(s *Shell) error {
	amount, err := exchange.ParseAmount(c.Amount)
	if err != nil {
		return err
	}
	return s.with(c.place, false, func(o *admin.Client) error {
		var e admin.Entry
		in := map[string]any{"amount": amount, "key": c.Key, "note": c.Note}
		if err := o.Call(s.Context, http.MethodPost, "/v1/accounts/"+url.PathEscape(c.Account)+"/credits", in, &e); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.Stdout, "credited %s, balance %s\n", e.Amount, e.Balance)
		return err
	})
}

type ledgerBalance struct {
	place
	Account string `arg:"" optional:"" help:"The account's id; without it all are shown."`
	JSON    bool   `help:"Print JSON."`
}

// Run shows balances.
func (c *ledgerBalance) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var list []*admin.Balance
		if c.Account == "" {
			if err := o.Call(s.Context, http.MethodGet, "/v1/ledger", nil, &list); err != nil {
				return err
			}
		} else {
			b := new(admin.Balance)
			if err := o.Call(s.Context, http.MethodGet, "/v1/accounts/"+url.PathEscape(c.Account)+"/balance", nil, b); err != nil {
				return err
			}
			list = append(list, b)
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ACCOUNT\tAVAILABLE\tHELD\tTOTAL\tCURRENCY")
			for _, b := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.Account, b.Available, b.Held, b.Total, b.Currency)
			}
		})
	})
}

type ledgerEntries struct {
	place
	Account string `arg:"" help:"The account's id."`
	From    uint64 `help:"Number of the first entry."`
	Limit   int    `help:"How many." default:"100"`
	JSON    bool   `help:"Print JSON."`
}

// Run lists entries.
func (c *ledgerEntries) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var list []admin.Entry
		q := url.Values{"from": {strconv.FormatUint(c.From, 10)}, "limit": {strconv.Itoa(c.Limit)}}
		if err := o.Call(s.Context, http.MethodGet, "/v1/accounts/"+url.PathEscape(c.Account)+"/entries?"+q.Encode(), nil, &list); err != nil {
			return err
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "NO\tTIME\tKIND\tAMOUNT\tBALANCE\tMODEL\tIN\tOUT\tREF\tNOTE")
			for _, e := range list {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", e.Seq, e.Time.Format(time.DateTime), e.Kind, e.Amount, e.Balance, e.Model, prompt(e.Usage), completion(e.Usage), e.Ref, e.Note)
			}
		})
	})
}

func prompt(units map[string]int64) int64     { u := unitsOf(units); return u.Prompt() }
func completion(units map[string]int64) int64 { u := unitsOf(units); return u.Completion() }

func unitsOf(units map[string]int64) (u exchange.Usage) {
	for name, n := range units {
		if unit, ok := exchange.ParseUnit(name); ok {
			u.Units[unit] = n
		}
	}
	return u
}

type ledgerVerify struct {
	place
	JSON bool `help:"Print JSON."`
}

// Run proves the ledger, and fails when it does not hold.
func (c *ledgerVerify) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var v admin.Verification
		if err := o.Call(s.Context, http.MethodGet, "/v1/ledger/verify", nil, &v); err != nil {
			return err
		}
		err := s.print(c.JSON, v, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "entries\t%d\ncharges\t%d (%d estimated)\n", v.Entries, v.Charges, v.Estimates)
			fmt.Fprintf(w, "credited\t%s %s\ncharged\t%s\nrefunded\t%s\nadjusted\t%s\n", v.Credited, v.Currency, v.Charged, v.Refunded, v.Adjusted)
			fmt.Fprintf(w, "served\t%s\nbeyond holds\t%s\nbalances\t%s\ncalls under way\t%d, holding %s\nchain\t%s\n", v.Served, v.Excess, v.Balance, v.Intents, v.Held, v.Chain)
			for _, p := range v.Problems {
				fmt.Fprintf(w, "PROBLEM\t%s\n", p)
			}
			if v.OK {
				fmt.Fprintln(w, "ok\tit adds up")
			}
		})
		if err != nil {
			return err
		}
		if !v.OK {
			return fmt.Errorf("the ledger does not add up: %d problems", len(v.Problems)+v.Omitted)
		}
		return nil
	})
}
