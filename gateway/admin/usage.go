package admin

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/usage"
)

// Calls is a page of an account's calls, the newest first.
type Calls struct {
	Calls []usage.View `json:"calls"`
	Next  string       `json:"next,omitempty"` // what cursor asks for the page after it
}

// maxAccounts is how many accounts are summed up in one answer.
const maxAccounts = 10_000

// usage sums up what accounts called, one sum an account unless by tells them apart further.
func (a *API) usage(r *http.Request) (any, error) {
	q, err := sumsOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	book := a.config.Storage.Usage
	var names []string
	for name, err := range book.Accounts(r.Context()) {
		if err != nil {
			return nil, err
		}
		if names = append(names, name); len(names) > maxAccounts {
			return nil, refuse(http.StatusUnprocessableEntity, "too_many", "There are more than %d accounts: ask for one.", maxAccounts)
		}
	}
	slices.Sort(names)
	out := []usage.SumView{}
	for _, name := range names {
		if out, err = a.sums(r, out, name, q); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// accountUsage is usage of one account.
func (a *API) accountUsage(r *http.Request) (any, error) {
	q, err := sumsOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return a.sums(r, []usage.SumView{}, r.PathValue("account"), q)
}

func (a *API) sums(r *http.Request, out []usage.SumView, account string, q usage.Query) ([]usage.SumView, error) {
	list, err := a.config.Storage.Usage.Sums(r.Context(), account, q)
	if errors.Is(err, usage.ErrTooMany) {
		return nil, refuse(http.StatusUnprocessableEntity, "too_many", "These are more sums than are given at once: ask for days, for less time, or by less.")
	}
	for i := range list {
		out = append(out, list[i].View(account))
	}
	return out, err
}

// sumsOf reads what sums are asked for: from, to, step (hour or day), by (time, model, key, with commas), model, key.
func sumsOf(v url.Values) (q usage.Query, err error) {
	q = usage.Query{Step: usage.Day, Model: v.Get("model"), Key: v.Get("key")}
	if q.From, q.To, err = between(v); err != nil {
		return q, err
	}
	switch v.Get("step") {
	case "", "day":
	case "hour":
		q.Step = usage.Hour
	default:
		return q, refuse(http.StatusBadRequest, "invalid", "step is hour or day.")
	}
	for word := range strings.SplitSeq(v.Get("by"), ",") {
		switch word {
		case "":
		case "time":
			q.By |= usage.ByTime
		case "model":
			q.By |= usage.ByModel
		case "key":
			q.By |= usage.ByKey
		default:
			return q, refuse(http.StatusBadRequest, "invalid", "by is one or more of time, model and key, with commas between.")
		}
	}
	return q, nil
}

// between reads from and to: days (2026-01-31, from midnight UTC) or times (RFC 3339).
func between(v url.Values) (from, to time.Time, err error) {
	read := func(name string) (t time.Time) {
		text := v.Get(name)
		if text == "" || err != nil {
			return t
		}
		var wrong error
		if t, wrong = time.Parse(time.DateOnly, text); wrong != nil {
			if t, wrong = time.Parse(time.RFC3339, text); wrong != nil {
				err = refuse(http.StatusBadRequest, "invalid", "%s is a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z.", name)
			}
		}
		return t
	}
	from, to = read("from"), read("to")
	return from, to, err
}

// calls is a page of one account's calls.
func (a *API) calls(r *http.Request) (any, error) {
	v := r.URL.Query()
	f := usage.Filter{Key: v.Get("key"), Model: v.Get("model"), Route: v.Get("route")}
	var err error
	if f.From, f.To, err = between(v); err != nil {
		return nil, err
	}
	limit := 100
	if s := v.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > usage.MaxPage {
			return nil, refuse(http.StatusBadRequest, "invalid", "limit is 1 to %d.", usage.MaxPage)
		}
	}
	if s := v.Get("status"); s != "" {
		class, is := strings.CutSuffix(s, "xx")
		f.Status, err = strconv.Atoi(class)
		if err != nil || is && (f.Status < 1 || f.Status > 5) || !is && (f.Status < 100 || f.Status > 599) {
			return nil, refuse(http.StatusBadRequest, "invalid", "status is one such as 429, or a class such as 4xx.")
		}
	}
	p, err := a.config.Storage.Usage.Page(r.Context(), r.PathValue("account"), f, limit, v.Get("cursor"))
	if errors.Is(err, usage.ErrCursor) {
		return nil, refuse(http.StatusBadRequest, "invalid", "cursor is the next of a page of this account.")
	}
	out := Calls{Calls: []usage.View{}, Next: p.Next}
	for i := range p.Records {
		out.Calls = append(out.Calls, p.Records[i].View())
	}
	return out, err
}

// verifyUsage proves that sums, records and the ledger agree.
func (a *API) verifyUsage(r *http.Request) (any, error) {
	return a.config.Storage.Usage.Verify(r.Context())
}
