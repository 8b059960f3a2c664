package operator

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
)

// Audit is the command about who did what.
type Audit struct {
	List   auditList   `cmd:"" help:"List what was done, the newest first."`
	Verify auditVerify `cmd:"" help:"Prove that nothing was changed, removed or put in."`
}

type auditList struct {
	place
	Actor   string `help:"Who did it: a person's id, uid:1000, token:... as the list shows them."`
	Action  string `help:"What was done, such as key.create."`
	Subject string `help:"To what: an account's, a key's or a person's id."`
	From    string `help:"From this day (2026-01-31, midnight UTC) or time (RFC 3339) on."`
	To      string `help:"Up to and without this day or time."`
	Limit   int    `help:"How many at most." default:"100"`
	JSON    bool   `help:"Print JSON."`
}

// Run lists entries, page by page.
func (c *auditList) Run(s *Shell) error {
	if c.Limit < 1 {
		return fmt.Errorf("can not list %d entries", c.Limit)
	}
	return s.with(c.place, false, func(o *admin.Client) error {
		list := []admin.Action{}
		q := url.Values{"actor": {c.Actor}, "action": {c.Action}, "subject": {c.Subject}, "from": {c.From}, "to": {c.To}}
		for len(list) < c.Limit {
			q.Set("limit", strconv.Itoa(min(c.Limit-len(list), 1000)))
			var page admin.Actions
			if err := o.Call(s.Context, http.MethodGet, "/v1/audit?"+q.Encode(), nil, &page); err != nil {
				return err
			}
			list = append(list, page.Entries...)
			if page.Next == 0 {
				break
			}
			q.Set("before", strconv.FormatUint(page.Next, 10))
		}
		return s.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "NO\tTIME\tACTOR\tACTION\tSUBJECT\tOUTCOME\tREASON\tDETAIL")
			for _, e := range list {
				var detail []string
				for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
					detail = append(detail, name+"="+e.Detail[name])
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Seq, e.Time.Format(time.DateTime), e.Actor, e.Action, e.Subject, e.Outcome, dash(e.Reason), dash(strings.Join(detail, " ")))
			}
		})
	})
}

type auditVerify struct {
	place
	Mark string `help:"A mark that an earlier run printed: the log must still hold that entry."`
	JSON bool   `help:"Print JSON."`
}

// Run proves the audit log, and fails when it does not hold.
func (c *auditVerify) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var v admin.AuditProof
		if err := o.Call(s.Context, http.MethodGet, "/v1/audit/verify?"+url.Values{"mark": {c.Mark}}.Encode(), nil, &v); err != nil {
			return err
		}
		err := s.print(c.JSON, v, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "entries\t%d, from number %d\nnot kept any more\tup to number %d\nunder way\t%d\nmark\t%s\n", v.Entries, v.First, v.Retired, v.Begun, cmp.Or(v.Mark, "-"))
			for _, p := range v.Problems {
				fmt.Fprintf(w, "PROBLEM\t%s: %s\n", p.Kind, p.Text)
			}
			if v.OK {
				fmt.Fprintln(w, "ok\tthe chain holds")
			}
		})
		if err != nil {
			return err
		}
		if !v.OK {
			return fmt.Errorf("the audit log does not hold: %d problems, the first: %s", len(v.Problems)+v.Omitted, v.Problems[0].Text)
		}
		return nil
	})
}

// Vault is the command about the keys of what is sealed.
type Vault struct {
	Rotate vaultRotate `cmd:"" help:"Make a new master key and wrap all keys under it."`
}

type vaultRotate struct {
	place
}

// Run gives the vault a new master key.
func (c *vaultRotate) Run(s *Shell) error {
	return s.with(c.place, false, func(o *admin.Client) error {
		var v admin.VaultState
		if err := o.Call(s.Context, http.MethodPost, "/v1/vault/rotate", nil, &v); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.Stdout, "%d keys are under a new master key\n", v.Owners)
		return err
	})
}
