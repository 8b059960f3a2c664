package console

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/console/history"
	"github.com/postern-gateway/postern/gateway/console/openapi"
	"github.com/postern-gateway/postern/gateway/console/site"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
)

// home says what this is.
func (q *request) home() (*answer, error) {
	endpoints := q.endpoints()
	models, by := openapi.Callable(endpoints)
	data := struct {
		Models    []*config.Model
		Endpoints int
		State     history.State
		Call      openapi.Call
	}{Models: models, Endpoints: len(endpoints), State: q.console.worst(models)}
	if len(models) > 0 {
		data.Call = by[models[0].Name][0].Calls(q.console.base(), models[0].Name)[0]
	}
	return &answer{Page: "home", Title: "home.title", Data: data}, nil
}

func (q *request) endpoints() []*openapi.Endpoint {
	return openapi.Endpoints(q.config, q.console.config.Formats)
}

// worst is how the models are together: good only if all are, bad only if all are.
func (k *Console) worst(models []*config.Model) history.State {
	states := k.states()
	bad, less := 0, 0
	for _, m := range models {
		switch states[m.Name] {
		case history.Bad:
			bad++
		case history.Partial:
			less++
		}
	}
	switch {
	case bad > 0 && bad == len(models):
		return history.Bad
	case bad+less > 0:
		return history.Partial
	}
	return history.Good
}

// price is what a unit costs.
type price struct {
	Unit    string // key of its name
	Amount  exchange.Amount
	Million bool // the amount is that of a million
}

// prices are a price row's, tokens by the million.
func prices(per *[exchange.UnitCount]exchange.Amount, set *[exchange.UnitCount]bool) (list []price) {
	for u := range exchange.UnitCount {
		if !set[u] {
			continue
		}
		p := price{Unit: "unit." + u.String(), Amount: per[u]}
		if u < exchange.Requests {
			if m, ok := per[u].Times(1_000_000); ok {
				p.Amount, p.Million = m, true
			}
		}
		list = append(list, p)
	}
	return list
}

// row is a price row in force, or one that will be.
type row struct {
	From   time.Time
	Now    bool
	Prices []price
	Tiers  []tier
}

type tier struct {
	Above  int64
	Prices []price
}

// offer is a model as its page shows it.
type offer struct {
	*config.Model
	State     history.State
	Format    string
	Rows      []row // the one in force first, then those to come
	Endpoints []*openapi.Endpoint
	Streams   bool
	Calls     []openapi.Call
}

// offered is what there is to say of a model at a moment.
func (q *request) offered(m *config.Model, by []*openapi.Endpoint, states map[string]history.State) *offer {
	o := &offer{Model: m, State: states[m.Name], Endpoints: by}
	for _, e := range by {
		o.Format, o.Streams = e.Format, o.Streams || e.Streams
	}
	now := q.Now()
	for i, p := range m.Prices {
		if i+1 < len(m.Prices) && !m.Prices[i+1].Effective.After(now) {
			continue // another has followed it
		}
		r := row{From: p.Effective, Now: !p.Effective.After(now), Prices: prices(&p.Per, &p.Set)}
		for _, t := range p.Tiers {
			r.Tiers = append(r.Tiers, tier{Above: t.Above, Prices: prices(&t.Per, &t.Set)})
		}
		o.Rows = append(o.Rows, r)
	}
	return o
}

func (q *request) models() (*answer, error) {
	models, by := openapi.Callable(q.endpoints())
	states := q.console.states()
	var list []*offer
	for _, m := range models {
		list = append(list, q.offered(m, by[m.Name], states))
	}
	return &answer{Page: "models", Title: "models.title", Data: list}, nil
}

func (q *request) model() (*answer, error) {
	models, by := openapi.Callable(q.endpoints())
	i := slices.IndexFunc(models, func(m *config.Model) bool { return m.Name == q.PathValue("model") })
	if i < 0 {
		return q.missing()
	}
	o := q.offered(models[i], by[models[i].Name], q.console.states())
	o.Calls = o.Endpoints[0].Calls(q.console.base(), o.Name)
	return &answer{Page: "model", Name: o.Name, Data: o}, nil
}

// api is a public call as its page shows it.
type api struct {
	*openapi.Endpoint
	URL  string
	Call openapi.Call
}

func (q *request) apis() (*answer, error) {
	var list []api
	base := q.console.base()
	for _, e := range q.endpoints() {
		a := api{Endpoint: e, URL: e.URL(base)}
		if e.Billed && len(e.Models) > 0 {
			a.Call = e.Calls(base, e.Models[0].Name)[0]
		} else {
			a.Call = e.Plain(base)
		}
		list = append(list, a)
	}
	return &answer{Page: "apis", Title: "apis.title", Data: list}, nil
}

// openapi is the document of what there is.
func (k *Console) openapi(w http.ResponseWriter, _ *http.Request) {
	c := k.config.Server.Config()
	doc, err := openapi.Document(c.Console.Title, c.Digest[:12], k.base(), openapi.Endpoints(c, k.config.Formats))
	if err != nil {
		k.config.Log.Error("write the OpenAPI document", "error", err)
		problem(w, http.StatusInternalServerError, "internal_error", "The document can not be written.")
		return
	}
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin") // it is for everyone's tools
	whole(w, "application/json", append(doc, '\n'))
}

// standing is how a model stands, and stood.
type standing struct {
	Name    string
	Summary string
	State   history.State
	Share   float64
	Known   bool
	Slots   []slot
}

// slot is a half hour of it.
type slot struct {
	X     int
	Class string // of the style sheet
	Start time.Time
}

var stateClasses = [...]string{"good", "partial", "bad"}

func (q *request) status() (*answer, error) {
	models, _ := openapi.Callable(q.endpoints())
	states := q.console.states()
	data := struct {
		State   history.State
		Ready   bool
		Since   time.Time
		Models  []standing
		Refused bool
	}{State: q.console.worst(models), Ready: q.console.config.Server.Ready(q.Context()) == nil, Since: q.console.started}
	if !data.Ready {
		data.State = max(data.State, history.Partial)
	}
	for _, m := range models {
		slots, share, ok := q.console.history.Model(m.Name)
		s := standing{Name: m.Name, Summary: m.Summary, State: states[m.Name], Share: share, Known: ok}
		last := q.Now().Truncate(history.SlotTime)
		for i := range history.Slots {
			at := slot{X: i * 10, Class: "none", Start: last.Add(time.Duration(i+1-history.Slots) * history.SlotTime)}
			if j := slices.IndexFunc(slots, func(s history.Slot) bool { return s.Start.Equal(at.Start) }); j >= 0 {
				if worst, ok := slots[j].Worst(); ok {
					at.Class = stateClasses[worst]
				}
			}
			s.Slots = append(s.Slots, at)
		}
		data.Models = append(data.Models, s)
	}
	return &answer{Page: "status", Title: "status.title", Data: data, Live: true}, nil
}

// legal is a text that using the service means accepting, as its page shows it.
type legal struct {
	Page     *notice.Page // of a policy; nil: there is none
	Versions []version    // of a policy, the latest first; the page that is shown is not a link
	Terms    []site.Part
}

// version is one of the policy.
type version struct {
	Name      string
	Effective time.Time
	State     string // key
	Shown     bool
}

// policy is the privacy policy in force, or the version that was asked for.
func (q *request) policy() (*answer, error) {
	a := &answer{Page: "legal", Title: "privacy.title"}
	if !q.config.Privacy.Written {
		a.Status, a.Data = http.StatusNotFound, legal{}
		return a, nil
	}
	list, err := q.console.config.Server.Policies().List(q.Context())
	if err != nil {
		return nil, err
	}
	edition := notice.InForce(list, q.Now())
	if name := q.FormValue("version"); name != "" {
		i := slices.IndexFunc(list, func(e *notice.Edition) bool { return e.Version == name })
		if i < 0 {
			return q.missing()
		}
		edition = list[i]
	}
	if edition == nil {
		return nil, errors.New("the policy in force was not kept")
	}
	var data legal
	for _, e := range list {
		data.Versions = append(data.Versions, version{Name: e.Version, Effective: e.Effective, State: "legal." + string(notice.StandingOf(list, e.Version, q.Now()).State), Shown: e == edition})
	}
	page := edition.Page(q.language.Code, notice.StandingOf(list, edition.Version, q.Now()))
	data.Page, a.Data = &page, data
	return a, nil
}

func (q *request) terms() (*answer, error) {
	a := &answer{Page: "legal", Title: "terms.title", Data: legal{Terms: q.site.Terms[q.language.Code]}}
	if len(q.site.Terms) == 0 {
		a.Status = http.StatusNotFound
	}
	return a, nil
}

// Published reports whether there is a privacy policy.
func (q *request) Published() bool { return q.config.Privacy.Written }

// HasTerms reports whether there are terms of use.
func (q *request) HasTerms() bool { return len(q.site.Terms) > 0 }

// missing answers for paths that are none: with a page for people, and as the gateway does for programs.
func (q *request) missing() (*answer, error) {
	if !strings.Contains(q.Header.Get("Accept"), "text/html") {
		return &answer{Status: http.StatusNotFound}, nil
	}
	return &answer{Page: "missing", Title: "missing.title", Status: http.StatusNotFound, Data: nil}, nil
}

// Link is path with one query parameter more.
func (q *request) Link(path, name, value string) string {
	return path + "?" + url.Values{name: {value}}.Encode()
}
