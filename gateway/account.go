package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
)

type accountCommand struct {
	Create accountCreate `cmd:"" help:"Make an account and print its id."`
	List   accountList   `cmd:"" help:"List accounts with their balances."`
	Key    keyCommand    `cmd:"" help:"API keys of an account."`
}

type keyCommand struct {
	Create keyCreate `cmd:"" help:"Make a key and print it: it can not be shown again."`
	List   keyList   `cmd:"" help:"List an account's keys."`
	Revoke keyRevoke `cmd:"" help:"Revoke a key at once."`
}

type accountCreate struct {
	place
	Name string `arg:"" help:"What the account is called."`
}

// Run makes an account and prints its id.
func (c *accountCreate) Run(a *App) error {
	return a.with(c.place, false, func(o *admin.Client) error {
		var made admin.Account
		if err := o.Call(a.Context, http.MethodPost, "/v1/accounts", map[string]string{"name": c.Name}, &made); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.Stdout, made.ID)
		return err
	})
}

type accountList struct {
	place
	JSON bool `help:"Print JSON."`
}

// Run lists accounts.
func (c *accountList) Run(a *App) error {
	return a.with(c.place, false, func(o *admin.Client) error {
		var list []admin.Account
		if err := o.Call(a.Context, http.MethodGet, "/v1/accounts", nil, &list); err != nil {
			return err
		}
		return a.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ID\tNAME\tSTATUS\tAVAILABLE\tHELD\tCREATED")
			for _, v := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\t%s\t%s\n", v.ID, v.Name, v.Status, v.Balance.Available, v.Balance.Currency, v.Balance.Held, v.Created.Format(time.DateTime))
			}
		})
	})
}

type keyCreate struct {
	place
	Account string        `arg:"" help:"The account's id."`
	Name    string        `help:"What the key is called." default:"default"`
	Scope   []string      `help:"What the key may do; repeatable." default:"models:call"`
	Expires time.Duration `help:"How long the key lives; 0: until it is revoked."`
}

// Run makes a key and prints its secret.
func (c *keyCreate) Run(a *App) error {
	return a.with(c.place, false, func(o *admin.Client) error {
		in := map[string]any{"name": c.Name, "scopes": c.Scope}
		if c.Expires > 0 {
			in["expires"] = time.Now().Add(c.Expires)
		}
		var made admin.Key
		if err := o.Call(a.Context, http.MethodPost, "/v1/accounts/"+url.PathEscape(c.Account)+"/keys", in, &made); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.Stdout, made.Secret)
		return err
	})
}

type keyList struct {
	place
	Account string `arg:"" help:"The account's id."`
	JSON    bool   `help:"Print JSON."`
}

// Run lists an account's keys.
func (c *keyList) Run(a *App) error {
	return a.with(c.place, false, func(o *admin.Client) error {
		var list []admin.Key
		if err := o.Call(a.Context, http.MethodGet, "/v1/accounts/"+url.PathEscape(c.Account)+"/keys", nil, &list); err != nil {
			return err
		}
		return a.print(c.JSON, list, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "ID\tNAME\tSCOPES\tCREATED\tUSED\tEXPIRES\tREVOKED")
			for _, k := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, strings.Join(k.Scopes, ","), date(k.Created), date(k.Used), date(k.Expires), date(k.Revoked))
			}
		})
	})
}

type keyRevoke struct {
	place
	Account string `arg:"" help:"The account's id."`
	Key     string `arg:"" help:"The key's id, as list shows it."`
}

// Run revokes a key.
func (c *keyRevoke) Run(a *App) error {
	return a.with(c.place, false, func(o *admin.Client) error {
		var k admin.Key
		if err := o.Call(a.Context, http.MethodDelete, "/v1/accounts/"+url.PathEscape(c.Account)+"/keys/"+url.PathEscape(c.Key), nil, &k); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.Stdout, "revoked %s\n", k.ID)
		return err
	})
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateTime)
}

// print shows a result as JSON or as a table.
func (a *App) print(asJSON bool, v any, table func(*tabwriter.Writer)) error {
	if asJSON {
		e := json.NewEncoder(a.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}
