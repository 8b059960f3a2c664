package console

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/admin"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/console/history"
	"github.com/postern-gateway/postern/gateway/console/openapi"
	"github.com/postern-gateway/postern/gateway/console/site"
	"github.com/postern-gateway/postern/gateway/console/words"
	"github.com/postern-gateway/postern/gateway/exchange"
)

//go:embed pages
var pageFiles embed.FS

// layout is a page's template, with the frame around it.
type layout = template.Template

// loadPages parses every page with the frame and the parts.
func loadPages() (map[string]*layout, error) {
	frame, err := template.New("frame.html").ParseFS(pageFiles, "pages/frame.html", "pages/parts.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	pages := map[string]*layout{}
	for _, name := range names {
		own, err := frame.Clone()
		if err != nil {
			return nil, err
		}
		if _, err := own.ParseFS(pageFiles, name); err != nil {
			return nil, err
		}
		pages[strings.TrimSuffix(path.Base(name), ".html")] = own
	}
	return pages, nil
}

// request is one request for a page, with what every page needs to know.
type request struct {
	*http.Request
	console  *Console
	writer   http.ResponseWriter
	config   *config.Config // in force when the request began
	site     *site.Config
	language *words.Language
	session  *session // nil: nobody is signed in
}

// page answers a request.
type page func(*request) (*answer, error)

// answer is what a page answers with.
type answer struct {
	Page     string // the template; with Redirect none
	Title    string // key of the text
	Name     string // instead of Title: a name
	Data     any
	Status   int    // default 200
	Redirect string // to another page
	Live     bool   // the page's live parts are to be read again from time to time
}

// view is what templates see.
type view struct {
	*answer
	*request
	Site      string
	Theme     string
	Languages []*words.Language
	Welcome   bool // operators may sign in from where this request comes from
	Problem   string
}

// serve makes a handler of a page. Those of operators are for them alone.
func (k *Console) serve(h page, operators bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{Request: r, console: k, writer: w, config: k.config.Server.Config()}
		q.site = q.config.Console
		q.language = q.chosen()
		if q.welcome() {
			q.session = k.doors.find(r)
		}
		w.Header().Set("Vary", "Accept-Language, Cookie")
		answer, err := q.answer(h, operators)
		if err != nil {
			answer = q.failed(err)
		}
		if answer.Page == "" && answer.Redirect == "" {
			problem(w, http.StatusNotFound, "not_found", "Nothing is served at this address.")
			return
		}
		if answer.Redirect != "" {
			redirect(w, r, answer.Redirect)
			return
		}
		q.render(answer)
	})
}

func (q *request) answer(h page, operators bool) (*answer, error) {
	if operators {
		if q.session == nil {
			switch {
			case !q.welcome():
				return q.missing()
			case q.Method != http.MethodPost:
				return &answer{Redirect: "/operator/sign-in?to=" + template.URLQueryEscaper(q.URL.RequestURI())}, nil
			}
			return &answer{Redirect: "/operator/sign-in"}, nil
		}
		if q.Method == http.MethodPost && !same(q.PostFormValue("csrf"), q.session.CSRF) {
			return nil, &admin.Problem{Status: http.StatusForbidden, Code: "csrf", Detail: q.language.Text("problem.csrf")}
		}
	}
	return h(q)
}

// welcome reports whether operators may sign in from where the request comes from.
func (q *request) welcome() bool {
	p := network(q.RemoteAddr)
	return q.console.config.Admin != nil && q.console.config.Token != "" && p.IsValid() && q.site.Operator(p.Addr())
}

// failed is the page of an error. What is not the operator's mistake goes to the log and not to the page.
func (q *request) failed(err error) *answer {
	var p *admin.Problem
	if errors.As(err, &p) && p.Status < 500 {
		return &answer{Page: "problem", Title: "problem.title", Status: p.Status, Data: p.Detail}
	}
	q.console.config.Log.ErrorContext(q.Context(), "console: page failed", "page", q.Pattern, "error", err)
	return &answer{Page: "problem", Title: "problem.title", Status: http.StatusInternalServerError, Data: q.language.Text("problem.internal")}
}

// render writes the page: whole, so that a fault of a template leaves no half of one.
func (q *request) render(a *answer) {
	v := &view{answer: a, request: q, Site: q.site.Title, Theme: "auto", Languages: q.console.words.Languages(), Welcome: q.welcome()}
	if c, err := q.Cookie("theme"); err == nil && (c.Value == "light" || c.Value == "dark") {
		v.Theme = c.Value
	}
	if a.Name != "" {
		v.Title = a.Name
	} else {
		v.Title = q.language.Text(a.Title)
	}
	var b bytes.Buffer
	if err := q.console.pages[a.Page].Execute(&b, v); err != nil {
		q.console.config.Log.ErrorContext(q.Context(), "console: page can not be written", "page", a.Page, "error", err)
		problem(q.writer, http.StatusInternalServerError, "internal_error", "The page can not be shown.")
		return
	}
	h := q.writer.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", q.language.Tag)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	if q.session == nil && a.Status == 0 && !strings.HasPrefix(q.URL.Path, "/operator") {
		h.Set("Cache-Control", "no-cache")
	}
	if a.Status != 0 {
		q.writer.WriteHeader(a.Status)
	}
	_, _ = q.writer.Write(b.Bytes()) // the client may have gone
}

// chosen is the language: of the address, of the cookie, or what the browser asks for.
func (q *request) chosen() *words.Language {
	if l := q.console.words.Find(q.URL.Query().Get("lang")); l != nil {
		return l
	}
	if c, err := q.Cookie("lang"); err == nil {
		if l := q.console.words.Find(c.Value); l != nil {
			return l
		}
	}
	return q.console.words.Accepted(q.Header.Get("Accept-Language"))
}

// prefer keeps a language or a theme in a cookie, and goes back.
func (q *request) prefer() (*answer, error) {
	for name, known := range map[string]bool{
		"lang":  q.console.words.Find(q.PostFormValue("lang")) != nil,
		"theme": q.PostFormValue("theme") == "light" || q.PostFormValue("theme") == "dark" || q.PostFormValue("theme") == "auto",
	} {
		if known {
			http.SetCookie(q.writer, &http.Cookie{Name: name, Value: q.PostFormValue(name), Path: "/", MaxAge: 400 * 24 * 3600, HttpOnly: true, Secure: q.console.secure(q.Request), SameSite: http.SameSiteLaxMode})
		}
	}
	return &answer{Redirect: q.PostFormValue("to")}, nil
}

// What templates call.

// T is the text with that key.
func (q *request) T(key string, arguments ...any) string { return q.language.Text(key, arguments...) }

// Lang is the page's language.
func (q *request) Lang() *words.Language { return q.language }

// Asset is where a file is.
func (q *request) Asset(name string) string { return q.console.assets.path(name) }

// Session is the operator's, or nil.
func (q *request) Session() *session { return q.session }

// Here is the page's address, for coming back to it; without a choice of language, which a switch would not change.
func (q *request) Here() string {
	if q.Method == http.MethodPost {
		return "/"
	}
	u := *q.URL
	query := u.Query()
	query.Del("lang")
	query.Del("done")
	u.RawQuery = query.Encode()
	return local(u.RequestURI())
}

// Current reports whether the page is at path or, but for the first pages, below.
func (q *request) Current(path string) bool {
	return q.URL.Path == path || path != "/" && path != "/operator" && strings.HasPrefix(q.URL.Path, path+"/")
}

// Done is what a form has done, told on the page it leads to; empty otherwise.
func (q *request) Done() string {
	if key := "done." + q.URL.Query().Get("done"); q.language.Has(key) {
		return q.language.Text(key)
	}
	return ""
}

// Number writes a number, and a share of one in percent with Percent.
func (q *request) Number(v any) string {
	switch n := v.(type) {
	case float64:
		if math.IsNaN(n) {
			return "–"
		}
		decimals := 0
		if math.Abs(n) < 10 {
			decimals = 2
		}
		return q.language.Number(n, decimals)
	case int:
		return q.language.Number(float64(n), 0)
	case int64:
		return q.language.Number(float64(n), 0)
	case uint64:
		return q.language.Number(float64(n), 0)
	}
	return ""
}

// Percent writes a share of one.
func (q *request) Percent(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	return q.language.Number(math.Floor(share*10000+1e-9)/100, 2) + " %" // never rounded up to a hundred
}

// Bytes writes a number of octets.
func (q *request) Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if v < 10 && i > 0 {
		return q.language.Number(math.Round(v*10)/10, 1) + " " + units[i]
	}
	return q.language.Number(math.Round(v), 0) + " " + units[i]
}

// Seconds writes a time that something takes.
func (q *request) Seconds(s float64) string {
	switch {
	case math.IsNaN(s):
		return "–"
	case s < 0.01:
		return q.language.Number(math.Round(s*1e4)/10, 1) + " ms"
	case s < 1:
		return q.language.Number(math.Round(s*1e3), 0) + " ms"
	}
	return q.language.Number(math.Round(s*100)/100, 2) + " s"
}

// Time writes a moment, in UTC; nothing for none.
func (q *request) Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// Day writes the day of a moment, in UTC.
func (q *request) Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Money writes an amount with the ledger's currency.
func (q *request) Money(a exchange.Amount) string {
	return q.config.Ledger.Currency + " " + a.String()
}

// Now is when the page was written.
func (q *request) Now() time.Time { return q.console.config.Now() }

// link is an entry of a navigation.
type link struct {
	Path, Text string
	Current    bool
}

// Nav is an entry of a navigation.
func (q *request) Nav(path, key string) link {
	return link{Path: path, Text: q.T(key), Current: q.Current(path)}
}

// Inside reports whether the page is one of operators'.
func (q *request) Inside() bool {
	return q.session != nil && strings.HasPrefix(q.URL.Path, "/operator") && q.URL.Path != "/operator/sign-in"
}

// mark is a state with its name.
type mark struct{ Class, Text string }

// StateClass is a state's class of the style sheet.
func (q *request) StateClass(s history.State) string { return stateClasses[s] }

// State is a state as the pages show it.
func (q *request) State(s history.State) mark {
	return mark{stateClasses[s], q.T("state." + stateClasses[s])}
}

// StateOf is one with a text of its own.
func (q *request) StateOf(s history.State, key string) mark { return mark{stateClasses[s], q.T(key)} }

// AccountState is that of an account.
func (q *request) AccountState(status string) mark {
	if status == "active" {
		return mark{"good", q.T("account.active")}
	}
	return mark{"bad", q.T("account." + status)}
}

// KeyState is that of a key.
func (q *request) KeyState(k admin.Key) mark {
	switch {
	case !k.Revoked.IsZero():
		return mark{"bad", q.T("key.revoked")}
	case !k.Expires.IsZero() && !q.Now().Before(k.Expires):
		return mark{"bad", q.T("key.expired")}
	}
	return mark{"good", q.T("key.valid")}
}

// drawn is a figure, and the page that it is on.
type drawn struct {
	View   *request
	Figure figure
}

// Figure is what the template of a figure needs.
func (q *request) Figure(f figure) drawn { return drawn{q, f} }

// priced is a price list, and the page that it is on.
type priced struct {
	View *request
	Rows []row
}

// With is what the template of a price list needs.
func (q *request) With(rows []row) priced { return priced{q, rows} }

// Code is a text to copy.
func (q *request) Code(text string) openapi.Call {
	return openapi.Call{Name: q.T("key.secret"), Text: text}
}

// Octets is Bytes of what was counted.
func (q *request) Octets(n float64) string { return q.Bytes(int64(n)) }

// Each is how much of sum came to each of n.
func (q *request) Each(sum, n int64) string {
	if n == 0 {
		return "–"
	}
	return q.Number(sum / n)
}

// Currency is the ledger's.
func (q *request) Currency() string { return q.config.Ledger.Currency }

// Back is where the reader came from, if that was here.
func (q *request) Back() string {
	from, err := url.Parse(q.Header.Get("Referer"))
	if err != nil || from.Host != q.Host {
		return "/"
	}
	return local(from.RequestURI())
}
