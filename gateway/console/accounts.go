package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// proofTime bounds a proof of the ledger.
const proofTime = 30 * time.Minute

func (q *request) ledger() (*answer, error) {
	k := q.console
	data := struct {
		Balances []admin.Balance
		Total    exchange.Amount
		Held     exchange.Amount
		Running  bool
		Elapsed  float64
		Finished time.Time
		Failed   bool
		Proof    admin.Verification
	}{}
	if err := q.call("GET", "/v1/ledger", nil, &data.Balances); err != nil {
		return nil, err
	}
	for _, b := range data.Balances {
		data.Total, data.Held = data.Total.Add(b.Total), data.Held.Add(b.Held)
	}
	k.proving.Lock()
	p := k.proof
	k.proving.Unlock()
	data.Running, data.Finished, data.Failed, data.Proof = p.running, p.finished, p.problem, p.result
	if p.running {
		data.Elapsed = k.config.Now().Sub(p.started).Seconds()
	}
	return &answer{Page: "ledger", Title: "ledger.title", Data: data, Live: p.running}, nil
}

// prove begins a proof of the ledger, unless one is under way.
func (q *request) prove() (*answer, error) {
	k := q.console
	k.proving.Lock()
	defer k.proving.Unlock()
	if k.proof.running || k.ended {
		return &answer{Redirect: "/operator/ledger"}, nil
	}
	k.proof = proof{running: true, started: k.config.Now()}
	k.work.Go(func() {
		ctx, cancel := context.WithTimeout(k.alive, proofTime)
		defer cancel()
		var result admin.Verification
		err := k.config.Admin.Call(ctx, "GET", "/v1/ledger/verify", nil, &result)
		if err != nil {
			k.config.Log.Error("console: the ledger could not be read for its proof", "error", err)
		}
		k.proving.Lock()
		defer k.proving.Unlock()
		k.proof = proof{started: k.proof.started, finished: k.config.Now(), result: result, problem: err != nil}
	})
	return &answer{Redirect: "/operator/ledger"}, nil
}

// accountsShown is how many accounts a page lists; a search finds the others.
const accountsShown = 100

func (q *request) accounts() (*answer, error) {
	var all []admin.Account
	if err := q.call("GET", "/v1/accounts", nil, &all); err != nil {
		return nil, err
	}
	data := struct {
		Accounts []admin.Account
		Total    int
		Search   string
		More     bool
	}{Total: len(all), Search: strings.TrimSpace(q.FormValue("q"))}
	slices.SortStableFunc(all, func(a, b admin.Account) int { return b.Created.Compare(a.Created) })
	for _, a := range all {
		if data.Search != "" && a.ID != data.Search && !strings.Contains(strings.ToLower(a.Name), strings.ToLower(data.Search)) {
			continue
		}
		if data.More = len(data.Accounts) == accountsShown; data.More {
			break
		}
		data.Accounts = append(data.Accounts, a)
	}
	return &answer{Page: "accounts", Title: "accounts.title", Data: data}, nil
}

// at is the admin API's path of an account, and what is below it.
func at(id string, below ...string) string {
	path := "/v1/accounts/" + url.PathEscape(id)
	for _, b := range below {
		path += "/" + url.PathEscape(b)
	}
	return path
}

func (q *request) createAccount() (*answer, error) {
	var made admin.Account
	if err := q.call("POST", "/v1/accounts", map[string]string{"name": strings.TrimSpace(q.PostFormValue("name"))}, &made); err != nil {
		return nil, err
	}
	return &answer{Redirect: "/operator/accounts/" + made.ID + "?done=account"}, nil
}

// entriesShown is how many movements an account's page shows.
const entriesShown = 50

// customer is an account as its page shows it.
type customer struct {
	admin.Account
	Keys    []admin.Key
	Entries []admin.Entry
	Secret  string // of a key that was just made
	Once    string // names the next credit, so that sending the form twice credits once
	Scopes  []string
}

func (q *request) account() (*answer, error) {
	c := customer{Once: random()}
	id := q.PathValue("account")
	if err := q.call("GET", at(id), nil, &c.Account); err != nil {
		return nil, err
	}
	if err := q.call("GET", at(id, "keys"), nil, &c.Keys); err != nil {
		return nil, err
	}
	if err := q.call("GET", at(id, "entries")+"?limit="+strconv.Itoa(entriesShown), nil, &c.Entries); err != nil {
		return nil, err
	}
	slices.Reverse(c.Keys)
	if key := q.FormValue("key"); key != "" {
		c.Secret = q.session.show(key)
	}
	return &answer{Page: "account", Name: c.Name, Data: c}, nil
}

// confirmation asks before something that can not be undone, or not easily.
type confirmation struct {
	Question, Name, Explanation, Button string // keys but for Name
	Action, Back                        string
	Danger                              bool
	Fields                              [][2]string // sent along
	Facts                               [][2]string // shown: key and value
}

func (q *request) confirmDisable() (*answer, error) {
	var a admin.Account
	if err := q.call("GET", at(q.PathValue("account")), nil, &a); err != nil {
		return nil, err
	}
	back := "/operator/accounts/" + a.ID
	return &answer{Page: "confirm", Title: "disable.title", Data: confirmation{
		Question: "disable.question", Name: a.Name, Explanation: "disable.explanation", Button: "disable.button", Action: back + "/disable", Back: back, Danger: true,
	}}, nil
}

func (q *request) disable() (*answer, error) {
	var a admin.Account
	if err := q.call("POST", at(q.PathValue("account"), "disable"), nil, &a); err != nil {
		return nil, err
	}
	return &answer{Redirect: "/operator/accounts/" + a.ID + "?done=disabled"}, nil
}

// credit asks first, and then adds to an account's balance.
func (q *request) credit() (*answer, error) {
	id := q.PathValue("account")
	var a admin.Account
	if err := q.call("GET", at(id), nil, &a); err != nil {
		return nil, err
	}
	text, note, once := strings.TrimSpace(q.PostFormValue("amount")), strings.TrimSpace(q.PostFormValue("note")), q.PostFormValue("once")
	amount, err := exchange.ParseAmount(text)
	if err != nil || amount.Sign() <= 0 {
		return nil, &admin.Problem{Status: http.StatusBadRequest, Code: "invalid", Detail: q.T("credit.invalid")}
	}
	back := "/operator/accounts/" + a.ID
	if q.PostFormValue("sure") != "1" {
		return &answer{Page: "confirm", Title: "credit.title", Data: confirmation{
			Question: "credit.question", Name: a.Name, Explanation: "credit.explanation", Button: "credit.button", Action: back + "/credit", Back: back,
			Fields: [][2]string{{"amount", amount.String()}, {"note", note}, {"once", once}, {"sure", "1"}},
			Facts:  [][2]string{{"credit.amount", q.Money(amount)}, {"credit.before", q.Money(a.Balance.Available)}, {"credit.after", q.Money(a.Balance.Available.Add(amount))}, {"credit.note", note}},
		}}, nil
	}
	in := struct {
		Amount exchange.Amount `json:"amount"`
		Key    string          `json:"key"`
		Note   string          `json:"note"`
	}{amount, "console-" + once, note}
	if once == "" {
		return nil, &admin.Problem{Status: http.StatusBadRequest, Code: "invalid", Detail: q.T("problem.csrf")}
	}
	if err := q.call("POST", at(id, "credits"), in, nil); err != nil {
		return nil, err
	}
	return &answer{Redirect: back + "?done=credited"}, nil
}

func (q *request) createKey() (*answer, error) {
	id := q.PathValue("account")
	in := struct {
		Name    string     `json:"name"`
		Scopes  []string   `json:"scopes"`
		Expires *time.Time `json:"expires,omitempty"`
	}{Name: strings.TrimSpace(q.PostFormValue("name")), Scopes: strings.FieldsFunc(q.PostFormValue("scopes"), func(r rune) bool { return r == ' ' || r == ',' })}
	if len(in.Scopes) > account.MaxScopes {
		return nil, &admin.Problem{Status: http.StatusBadRequest, Code: "invalid", Detail: q.T("key.scopes")}
	}
	if text := q.PostFormValue("expires"); text != "" {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return nil, &admin.Problem{Status: http.StatusBadRequest, Code: "invalid", Detail: q.T("key.day")}
		}
		day = day.Add(24 * time.Hour) // the end of that day
		in.Expires = &day
	}
	var made admin.Key
	if err := q.call("POST", at(id, "keys"), in, &made); err != nil {
		return nil, err
	}
	q.session.keep(made.ID, made.Secret)
	return &answer{Redirect: "/operator/accounts/" + made.Account + "?done=key&key=" + url.QueryEscape(made.ID) + "#keys"}, nil
}

func (q *request) confirmRevoke() (*answer, error) {
	id, key := q.PathValue("account"), q.PathValue("k")
	var list []admin.Key
	if err := q.call("GET", at(id, "keys"), nil, &list); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(k admin.Key) bool { return k.ID == key })
	if i < 0 {
		return q.missing()
	}
	back := "/operator/accounts/" + list[i].Account
	return &answer{Page: "confirm", Title: "revoke.title", Data: confirmation{
		Question: "revoke.question", Name: list[i].Name, Explanation: "revoke.explanation", Button: "revoke.button", Action: back + "/keys/" + list[i].ID + "/revoke", Back: back, Danger: true,
	}}, nil
}

func (q *request) revoke() (*answer, error) {
	id := q.PathValue("account")
	var gone admin.Key
	if err := q.call("DELETE", at(id, "keys", q.PathValue("k")), nil, &gone); err != nil {
		return nil, err
	}
	return &answer{Redirect: "/operator/accounts/" + gone.Account + "?done=revoked#keys"}, nil
}
