package console

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/console/chart"
	"github.com/postern-gateway/postern/gateway/console/history"
	"github.com/postern-gateway/postern/gateway/console/openapi"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/explain"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// call is one of the admin API's.
func (q *request) call(method, path string, in, out any) error {
	return q.console.config.Admin.Call(q.Context(), method, path, in, out)
}

func (q *request) signInPage() (*answer, error) {
	if !q.welcome() {
		return q.missing()
	}
	if q.session != nil {
		return &answer{Redirect: "/operator"}, nil
	}
	return q.signInForm(""), nil
}

// door is what the page for signing in shows.
type door struct {
	To, Problem string
	Secure      bool
}

func (q *request) signInForm(problem string) *answer {
	a := &answer{Page: "sign-in", Title: "signin.title", Data: door{To: local(q.FormValue("to")), Problem: problem, Secure: q.console.secure(q.Request)}}
	if problem != "" {
		a.Status = http.StatusForbidden
	}
	return a
}

func (q *request) signIn() (*answer, error) {
	switch {
	case !q.welcome():
		return q.missing()
	case !q.console.secure(q.Request):
		return q.signInForm("signin.insecure"), nil
	}
	k, from := q.console, network(q.RemoteAddr)
	if wait, ok := k.doors.may(from); !ok {
		q.writer.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		a := q.signInForm("signin.wait")
		a.Status = http.StatusTooManyRequests
		return a, nil
	}
	if !same(q.PostFormValue("token"), k.config.Token) {
		k.config.Log.WarnContext(q.Context(), "console: an operator's token was wrong")
		return q.signInForm("signin.wrong"), nil
	}
	if _, err := k.config.Server.Storage().Audit.Append(q.Context(), audit.Entry{Actor: k.config.Actor, Action: "console.signin", Subject: "gateway", Outcome: audit.Done}); err != nil {
		return nil, err // what can not be recorded is not done
	}
	k.doors.succeeded(from)
	if q.session != nil {
		k.doors.end(q.session, false)
	}
	id := k.doors.open(from.Addr().String(), q.site.Session)
	http.SetCookie(q.writer, &http.Cookie{Name: cookie, Value: id, Path: "/", MaxAge: int(q.site.Session.Seconds()), HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
	k.config.Log.InfoContext(q.Context(), "console: an operator signed in")
	to := local(q.PostFormValue("to"))
	if to == "/" {
		to = "/operator"
	}
	return &answer{Redirect: to}, nil
}

func (q *request) signOut() (*answer, error) {
	q.console.doors.end(q.session, q.PostFormValue("all") == "1")
	http.SetCookie(q.writer, &http.Cookie{Name: cookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
	return &answer{Redirect: "/operator/sign-in?done=signed-out"}, nil
}

// figure is a chart with what stands beside it.
type figure struct {
	*chart.Chart
	ID     string
	Title  string // key
	Format string // of its values: number, seconds or bytes
}

func (q *request) traffic() (*answer, error) {
	totals, err := q.console.config.Metrics.Totals()
	if err != nil {
		return nil, err
	}
	data := struct {
		Day      bool
		Totals   telemetry.Totals
		Count    float64
		Failed   float64 // share of server errors
		Rate     float64 // exchanges a second, lately
		Routes   []routeRow
		Figures  []figure
		Overload server.Overload
		Started  time.Time
	}{Day: q.FormValue("range") == "day", Totals: totals, Started: q.console.started}
	if err := q.call("GET", "/v1/overload", nil, &data.Overload); err != nil {
		return nil, err
	}
	intervals := q.console.history.Hour()
	if n := len(intervals); n > 0 {
		last := intervals[n-1]
		for _, c := range last.Classes {
			data.Rate += c / last.Length.Seconds()
		}
	}
	if data.Day {
		intervals = q.console.history.Day()
	}
	data.Figures = q.figures(intervals)
	failed := 0.0
	for name, r := range totals.Routes {
		n := r.Count()
		data.Count += n
		failed += r.Classes[5]
		if n == 0 {
			continue
		}
		row := routeRow{Name: name, RouteTotals: r, Count: n, Client: r.Classes[4] / n, Server: r.Classes[5] / n, Mean: r.Seconds / n, Most: history.Quantile(r.Buckets, n, 0.95)}
		data.Routes = append(data.Routes, row)
	}
	data.Failed = failed / data.Count
	slices.SortFunc(data.Routes, func(a, b routeRow) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return &answer{Page: "traffic", Title: "traffic.title", Data: data, Live: true}, nil
}

// routeRow is what was counted of a route.
type routeRow struct {
	*telemetry.RouteTotals
	Name           string
	Count          float64
	Client, Server float64 // shares of 4xx and 5xx
	Mean, Most     float64 // seconds
}

// figures are the charts of what was counted.
func (q *request) figures(list []history.Interval) []figure {
	var labels []string
	var ok, moved, client, failed, median, most, input, output, sent []float64
	for _, i := range list {
		labels = append(labels, i.Start.UTC().Format("15:04"))
		ok, moved = append(ok, i.Classes[2]+i.Classes[1]+i.Classes[0]), append(moved, i.Classes[3])
		client, failed = append(client, i.Classes[4]), append(failed, i.Classes[5])
		median, most = append(median, i.Median), append(most, i.Most)
		input, output, sent = append(input, i.Input), append(output, i.Output), append(sent, i.Sent)
	}
	return []figure{
		{chart.Stack(labels,
			chart.Series{Name: "2xx", Class: "c2", Values: ok}, chart.Series{Name: "3xx", Class: "c3", Values: moved},
			chart.Series{Name: "4xx", Class: "c4", Values: client}, chart.Series{Name: "5xx", Class: "c5", Values: failed}), "requests", "traffic.requests", "number"},
		{chart.Draw(labels,
			chart.Series{Name: q.T("traffic.median"), Class: "c1", Values: median}, chart.Series{Name: q.T("traffic.most"), Class: "c4", Values: most}), "latency", "traffic.latency", "seconds"},
		{chart.Stack(labels,
			chart.Series{Name: q.T("traffic.input"), Class: "c1", Values: input}, chart.Series{Name: q.T("traffic.output"), Class: "c3", Values: output}), "tokens", "traffic.tokens", "number"},
		{chart.Stack(labels, chart.Series{Name: q.T("traffic.sent"), Class: "c1", Values: sent}), "sent", "traffic.bytes", "bytes"},
	}
}

// Value writes a value of a figure.
func (q *request) Value(f figure, v float64) string {
	switch f.Format {
	case "seconds":
		return q.Seconds(v)
	case "bytes":
		return q.Bytes(int64(v))
	}
	return q.Number(v)
}

// stage is a stage of a route and what it sees.
type stage struct {
	*config.Stage
	Name       string
	Headers    string
	Attributes string
	Body       string // key of how much of a body it gets
	Max        int64
	Place      string
}

// phase is the stages of a phase.
type phase struct {
	Name   string
	Stages []stage
}

// trail is a route as its page shows it.
type trail struct {
	*config.Route
	Listeners string
	To        string
	Phases    []phase
	Place     string
}

func (q *request) routes() (*answer, error) {
	var list []trail
	for _, r := range q.config.Routes {
		p := trail{Route: r, Place: r.Range.Filename + ":" + strconv.Itoa(r.Range.Start.Line)}
		var names []string
		for _, l := range r.Listeners {
			names = append(names, l.Name)
		}
		p.Listeners, names = strings.Join(names, ", "), nil
		for _, m := range r.Models {
			names = append(names, m.Name)
		}
		switch {
		case r.Upstream != nil:
			p.To = r.Upstream.Name
		case r.Models != nil:
			p.To = strings.Join(names, ", ")
		}
		for i, stages := range r.Chain() {
			if len(stages) == 0 {
				continue
			}
			ph := phase{Name: exchange.Phase(i).String()}
			for _, s := range stages {
				ph.Stages = append(ph.Stages, described(s))
			}
			p.Phases = append(p.Phases, ph)
		}
		list = append(list, p)
	}
	return &answer{Page: "routes", Title: "routes.title", Data: list}, nil
}

func described(s *config.Stage) stage {
	d := stage{Stage: s, Name: s.String(), Body: "sees.nobody", Place: s.Range.Filename + ":" + strconv.Itoa(s.Range.Start.Line)}
	if s.Hook == nil {
		return d
	}
	d.Headers, d.Attributes = strings.Join(s.Hook.Sees.Headers, ", "), strings.Join(s.Hook.Sees.Attributes, ", ")
	switch s.Hook.Sees.Body.Mode {
	case manifest.BodyBuffer:
		d.Body, d.Max = "sees.buffer", s.Hook.Sees.Body.Max
	case manifest.BodyStream:
		d.Body = "sees.stream"
	case manifest.BodyEvents:
		d.Body = "sees.events"
	}
	return d
}

func (q *request) plugins() (*answer, error) {
	var list []server.PluginStatus
	if err := q.call("GET", "/v1/plugins", nil, &list); err != nil {
		return nil, err
	}
	return &answer{Page: "plugins", Title: "plugins.title", Data: list, Live: true}, nil
}

func (q *request) upstreams() (*answer, error) {
	endpoints := map[string][]upstream.EndpointStatus{}
	if err := q.call("GET", "/v1/upstreams", nil, &endpoints); err != nil {
		return nil, err
	}
	data := struct {
		List      []*config.Upstream
		Endpoints map[string][]upstream.EndpointStatus
		Overload  server.Overload
	}{List: q.config.Upstreams, Endpoints: endpoints}
	if err := q.call("GET", "/v1/overload", nil, &data.Overload); err != nil {
		return nil, err
	}
	return &answer{Page: "upstreams", Title: "upstreams.title", Data: data, Live: true}, nil
}

// prices are the models with their prices and where they lead: all, not only those of the public catalogue.
func (q *request) prices() (*answer, error) {
	_, by := openapi.Callable(q.endpoints())
	states := q.console.states()
	var list []*offer
	for _, m := range q.config.Models {
		list = append(list, q.offered(m, by[m.Name], states))
	}
	return &answer{Page: "prices", Title: "prices.title", Data: list}, nil
}

// change is a line of the difference between two configurations.
type change struct {
	Class string // added, removed, or empty
	Text  string
}

// files shows what is in force, and what the files would change.
func (q *request) files() (*answer, error) {
	data := struct {
		Status  server.Status
		Plan    []string
		Changes []change
		Problem string
		Shown   bool
	}{}
	if err := q.call("GET", "/v1/status", nil, &data.Status); err != nil {
		return nil, err
	}
	data.Plan = (&explain.Explainer{Config: q.config, Formats: q.console.config.Formats}).Plan()
	if load := q.console.config.Files; load != nil {
		data.Shown = true
		ctx, cancel := context.WithTimeout(q.Context(), 30*time.Second)
		defer cancel()
		next, err := load(ctx)
		if err != nil {
			data.Problem = err.Error()
		} else {
			for _, line := range explain.Difference(data.Plan, (&explain.Explainer{Config: next, Formats: q.console.config.Formats}).Plan()) {
				data.Changes = append(data.Changes, change{Class: map[byte]string{'+': "added", '-': "removed"}[line[0]], Text: line})
			}
		}
	}
	return &answer{Page: "files", Title: "files.title", Data: data}, nil
}

func (q *request) reload() (*answer, error) {
	if err := q.call("POST", "/v1/reload", nil, nil); err != nil {
		return nil, err
	}
	return &answer{Redirect: "/operator/files?done=reloaded"}, nil
}

// auditPage is how many entries a page of the audit log has.
const auditPage = 50

// act is an entry of the audit log as its page shows it.
type act struct {
	admin.Action
	Details []string // "name: value", by name
}

func (q *request) audit() (*answer, error) {
	before, err := strconv.ParseUint("0"+q.FormValue("before"), 10, 64)
	if err != nil {
		return q.missing()
	}
	path := "/v1/audit?limit=" + strconv.Itoa(auditPage)
	if before > 0 {
		path += "&before=" + strconv.FormatUint(before, 10)
	}
	var page admin.Actions
	if err := q.call("GET", path, nil, &page); err != nil {
		return nil, err
	}
	data := struct {
		Acts []act
		Next uint64
	}{Next: page.Next}
	for _, e := range page.Entries {
		a := act{Action: e}
		for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
			a.Details = append(a.Details, name+": "+e.Detail[name])
		}
		data.Acts = append(data.Acts, a)
	}
	return &answer{Page: "audit", Title: "audit.title", Data: data}, nil
}

// proof is the ledger's, which takes as long as there are entries.
type proof struct {
	running  bool
	started  time.Time
	finished time.Time
	result   admin.Verification
	problem  bool
}
