package operator

import (
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/usage"
)

// Usage is the command about what was called.
type Usage struct {
	Sums   usageSums   `cmd:"" help:"Sum up what accounts called."`
	Calls  usageCalls  `cmd:"" help:"List an account's calls, the newest first."`
	Verify usageVerify `cmd:"" help:"Prove that sums, records and the ledger's charges agree."`
}

// span is a stretch of time and how it is told.
type span struct {
	From string `help:"From this day (2026-01-31, midnight UTC) or time (RFC 3339) on."`
	To   string `help:"Up to and without this day or time."`
	JSON bool   `help:"Print JSON." xor:"form"`
	CSV  bool   `help:"Print CSV (RFC 4180)." xor:"form"`
}

type usageSums struct {
	place
	span
	Account string   `arg:"" optional:"" help:"The account's id; without it all are summed up."`
	By      []string `help:"What sums are told apart by: time, model, key." enum:"time,model,key"`
	Step    string   `help:"Length of the times: hour or day." enum:"hour,day" default:"day"`
	Key     string   `help:"Of this API key alone."`
	Model   string   `help:"Of this model alone."`
}

// Run shows sums.
func (c *usageSums) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		path := "/v1/usage"
		if c.Account != "" {
			path = "/v1/accounts/" + url.PathEscape(c.Account) + "/usage"
		}
		q := url.Values{"from": {c.From}, "to": {c.To}, "by": {strings.Join(c.By, ",")}, "step": {c.Step}, "key": {c.Key}, "model": {c.Model}}
		var list []usage.SumView
		if err := o.Call(s.Context, http.MethodGet, path+"?"+q.Encode(), nil, &list); err != nil {
			return err
		}
		if c.CSV {
			return usage.WriteSums(s.Stdout, list)
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ACCOUNT\tTIME\tMODEL\tKEY\tCALLS\tERRORS\tIN\tOUT\tAMOUNT\tP50\tP95\tP99")
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%.0f ms\t%.0f ms\t%.0f ms\n",
					s.Account, date(s.Time), dash(s.Model), dash(s.Key), s.Calls, s.Errors, s.Prompt, s.Completion, s.Amount, s.P50, s.P95, s.P99)
			}
		})
	})
}

type usageCalls struct {
	place
	span
	Account string `arg:"" help:"The account's id."`
	Key     string `help:"Of this API key alone."`
	Model   string `help:"Of this model alone."`
	Route   string `help:"Of this route alone."`
	Status  string `help:"With this status alone, such as 429, or 4xx."`
	Limit   int    `help:"How many; 0: all." default:"100"`
}

// Run lists calls.
func (c *usageCalls) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		switch {
		case c.CSV:
			return usage.WriteCSV(s.Stdout, c.pages(s, o))
		case c.JSON: // one object a line: there may be many
			return usage.WriteJSONL(s.Stdout, c.pages(s, o))
		}
		w := tabwriter.NewWriter(s.Stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "TIME\tEXCHANGE\tROUTE\tMODEL\tKEY\tSTATUS\tIN\tOUT\tAMOUNT\tTOOK\tRECEIPT")
		for v, err := range c.pages(s, o) {
			if err != nil {
				return err
			}
			status := strconv.Itoa(v.Status)
			if v.Status == 0 {
				status = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%.0f ms\t%s\n",
				v.Time.Format(time.DateTime), v.ID, dash(v.Route), dash(v.Model), dash(v.Key), status, v.Prompt, v.Completion, v.Amount, v.Took, dash(v.Receipt))
		}
		return w.Flush()
	})
}

// pages yields calls, page by page.
func (c *usageCalls) pages(s *Shell, o *admin.Client) iter.Seq2[usage.View, error] {
	return func(yield func(usage.View, error) bool) {
		q := url.Values{"from": {c.From}, "to": {c.To}, "key": {c.Key}, "model": {c.Model}, "route": {c.Route}, "status": {c.Status}}
		for left := c.Limit; ; {
			limit := usage.MaxPage
			if c.Limit > 0 {
				limit = min(left, limit)
			}
			q.Set("limit", strconv.Itoa(limit))
			var page admin.Calls
			if err := o.Call(s.Context, http.MethodGet, "/v1/accounts/"+url.PathEscape(c.Account)+"/calls?"+q.Encode(), nil, &page); err != nil {
				yield(usage.View{}, err)
				return
			}
			for _, v := range page.Calls {
				if !yield(v, nil) {
					return
				}
			}
			left -= len(page.Calls)
			if page.Next == "" || c.Limit > 0 && left <= 0 {
				return
			}
			q.Set("cursor", page.Next)
		}
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type usageVerify struct {
	place
	JSON bool `help:"Print JSON."`
}

// Run proves the book of usage, and fails when it does not hold.
func (c *usageVerify) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var v usage.Report
		if err := o.Call(s.Context, http.MethodGet, "/v1/usage/verify", nil, &v); err != nil {
			return err
		}
		err := s.print(c.JSON, v, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "accounts\t%d\nrecords\t%d\nsums of hours\t%d\nsums of days\t%d\ncharges compared\t%d, %d without a record yet\n", v.Accounts, v.Records, v.Hours, v.Days, v.Charges, v.Waiting)
			for _, p := range v.Problems {
				fmt.Fprintf(w, "PROBLEM\t%s\n", p)
			}
			if len(v.Problems) == 0 {
				fmt.Fprintln(w, "ok\tit adds up")
			}
		})
		if err == nil && len(v.Problems) > 0 {
			err = fmt.Errorf("usage does not add up: %d problems", len(v.Problems)+v.Omitted)
		}
		return err
	})
}
