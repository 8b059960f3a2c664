package privacy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// Report is who sees what, for which purpose, on which basis and for how long, as the configuration makes it. Classes,
// holders and fields that nothing uses are not in it.
type Report struct {
	Published *Published `json:"published"` // nil: there is no privacy block
	Classes   []Category `json:"classes"`
	Holders   []Holder   `json:"holders"`
	Routes    []Path     `json:"routes"`
}

// Published is the head of a privacy block.
type Published struct {
	Version   string `json:"version"`
	Effective string `json:"effective"` // 2006-01-02
	Contact   string `json:"contact"`
	Operator  string `json:"operator,omitempty"`
}

// Category is a class with the fields that are in use.
type Category struct {
	Name       string        `json:"name"`
	Summary    field.Text    `json:"summary"`
	Described  bool          `json:"-"` // Summary is the operator's
	Fields     []Item        `json:"fields"`
	Purposes   []Purpose     `json:"purposes"`
	Basis      Basis         `json:"basis"`
	Retention  time.Duration `json:"-"`
	Kept       string        `json:"kept"` // Retention in words
	Acts       []Act         `json:"acts"` // what is done with it
	Recipients []string      `json:"recipients"`
}

// Item is a field in use.
type Item struct {
	Name  string     `json:"name"`
	About field.Text `json:"about"`
}

// Holder is who gets to see something: the store, the log, the collector of traces, a plugin or an upstream.
type Holder struct {
	Name     string              `json:"name"`
	Title    string              `json:"title,omitempty"` // of an upstream, for people
	Fields   map[string][]string `json:"fields"`          // by class
	Keeps    *string             `json:"keeps,omitempty"` // how long an upstream's provider keeps what it receives; nil: not known
	Training *bool               `json:"training,omitempty"`
	classes  []string
}

// Path is the way of a request's data.
type Path struct {
	Route   string  `json:"route"`
	Pattern string  `json:"pattern"`
	Stages  []Stage `json:"stages"`
	To      []Stage `json:"to"` // the upstreams
}

// Stage is one stop on it.
type Stage struct {
	Name   string   `json:"name"`
	Fields []string `json:"fields"`
	Grants []string `json:"grants,omitempty"`
	Asks   []string `json:"asks,omitempty"`
}

// Report makes the report of a checked policy.
func (p *Policy) Report() *Report {
	r := &Report{Classes: []Category{}, Holders: []Holder{}, Routes: []Path{}}
	if p.Written {
		r.Published = &Published{p.Version, p.Effective.Format(time.DateOnly), p.Contact, p.Operator}
	}
	for _, c := range p.Classes {
		if category := p.category(c); len(category.Fields) > 0 {
			r.Classes = append(r.Classes, category)
		}
	}
	for _, u := range p.Uses {
		i := slices.IndexFunc(r.Holders, func(h Holder) bool { return h.Name == u.By })
		if i < 0 {
			i = len(r.Holders)
			r.Holders = append(r.Holders, p.holder(u.By))
		}
		h, class := &r.Holders[i], p.ClassOf(u.Field).Name
		if h.Fields[class] == nil {
			h.classes = append(h.classes, class)
		}
		if !slices.Contains(h.Fields[class], u.Field) {
			h.Fields[class] = append(h.Fields[class], u.Field)
		}
	}
	for i := range p.Facts.Ways {
		w := &p.Facts.Ways[i]
		path := Path{Route: w.Route, Pattern: w.Pattern, Stages: []Stage{}, To: []Stage{}}
		for _, s := range w.Steps {
			path.Stages = append(path.Stages, Stage{Name: s.Stage, Fields: slices.Concat([]string{}, s.Fields), Grants: s.Grants, Asks: s.Asks})
		}
		for _, u := range w.Upstreams {
			path.To = append(path.To, Stage{Name: "upstream." + u, Fields: w.forwarded()})
		}
		r.Routes = append(r.Routes, path)
	}
	return r
}

// category is a class with the fields of it that are in use.
func (p *Policy) category(c *Class) Category {
	out := Category{Name: c.Name, Summary: c.Summary, Described: c.described, Fields: []Item{}, Purposes: c.Purposes, Basis: c.Basis, Retention: c.Retention, Kept: Span(c.Retention).En, Acts: []Act{}, Recipients: []string{}}
	for _, u := range p.Uses {
		if p.ClassOf(u.Field) != c {
			continue
		}
		if !slices.ContainsFunc(out.Fields, func(i Item) bool { return i.Name == u.Field }) {
			out.Fields = append(out.Fields, Item{u.Field, about(u.Field)})
		}
		if !slices.Contains(out.Acts, u.Act) {
			out.Acts = append(out.Acts, u.Act)
		}
		if u.Act == Shares && !slices.Contains(out.Recipients, u.By) {
			out.Recipients = append(out.Recipients, u.By)
		}
	}
	return out
}

// about is what a field is, for people.
func about(name string) field.Text {
	if f, ok := field.Find(name); ok {
		return f.About
	}
	_, own, _ := strings.Cut(name, ".")
	if strings.HasPrefix(name, "header.") {
		return field.Text{En: "the header " + own, Zh: "请求头 " + own}
	}
	return field.Text{En: "what a policy found out: " + own, Zh: "策略得出的信息 " + own}
}

func (p *Policy) holder(name string) Holder {
	h := Holder{Name: name, Fields: map[string][]string{}}
	for i := range p.Facts.Receivers {
		if r := &p.Facts.Receivers[i]; name == r.By() {
			h.Title, h.Training = r.Title(), r.Training
			if r.Known {
				keeps := "nothing"
				if r.Retention > 0 {
					keeps = "what it receives " + Span(r.Retention).En
				}
				h.Keeps = &keeps
			}
		}
	}
	return h
}

// Text is the report for people at a terminal.
func (r *Report) Text() string {
	var b strings.Builder
	say := func(format string, arguments ...any) { fmt.Fprintf(&b, format+"\n", arguments...) }
	if p := r.Published; p != nil {
		say("privacy policy version %s, from %s, contact %s", p.Version, p.Effective, p.Contact)
	} else {
		say("no privacy block: no policy is published, and the built-in classes are in force")
	}
	for _, c := range r.Classes {
		say("\nclass %s: %s", c.Name, c.Summary.En)
		say("  for %s, on the basis of %s, kept %s", join(c.Purposes), strings.ReplaceAll(string(c.Basis), "_", " "), c.Kept)
		say("  recipients: %s", none(c.Recipients, "nobody"))
		for _, f := range c.Fields {
			say("  %s: %s", f.Name, f.About.En)
		}
	}
	for _, h := range r.Holders {
		say("\n%s sees%s", h.Name, h.remarks())
		for _, c := range h.classes {
			say("  %s: %s", c, strings.Join(h.Fields[c], ", "))
		}
	}
	for _, p := range r.Routes {
		say("\nroute %s: %s", p.Route, p.Pattern)
		for _, s := range p.Stages {
			say("  %s sees %s%s", s.Name, none(s.Fields, "nothing"), s.remarks())
		}
		for _, u := range p.To {
			say("  %s receives %s", u.Name, none(u.Fields, "nothing"))
		}
		if len(p.To) == 0 {
			say("  the gateway answers, nothing goes further")
		}
	}
	return b.String()
}

// remarks say what an upstream's provider does with what it receives.
func (h *Holder) remarks() string {
	if h.Title == "" {
		return ""
	}
	keeps, trains := "it is not known how long it keeps it", "it is not known whether it trains on it"
	if h.Keeps != nil {
		keeps = "it keeps " + *h.Keeps
	}
	if h.Training != nil {
		trains = map[bool]string{true: "it trains on it", false: "it does not train on it"}[*h.Training]
	}
	return fmt.Sprintf(" (%s; %s; %s)", h.Title, keeps, trains)
}

func (s *Stage) remarks() string {
	text := ""
	if len(s.Grants) > 0 {
		text += "; may use " + strings.Join(s.Grants, ", ")
	}
	if len(s.Asks) > 0 {
		text += "; may send it to " + strings.Join(s.Asks, ", ")
	}
	return text
}

func none(list []string, word string) string {
	if len(list) == 0 {
		return word
	}
	return strings.Join(list, ", ")
}

func join[T ~string](list []T) string {
	var out []string
	for _, w := range list {
		out = append(out, string(w))
	}
	return strings.Join(out, ", ")
}
