package privacy

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// Facts are what a configuration makes the program do, as far as it is about personal data. Package config states them.
type Facts struct {
	Encrypted bool // every listener speaks TLS alone
	Access    bool // the access log is written
	Traces    bool // spans are sent away
	LogAt     hcl.Range
	TracesAt  hcl.Range
	Stores    []Storing
	Ways      []Way
	Receivers []Receiver
}

// Storing is a feature that stores fields, for how long and where that is said.
type Storing struct {
	Feature field.Feature
	Keep    time.Duration // or WithAccount, or Forever
	Memory  bool          // only in memory, and gone when the process ends: Keep says nothing then
	At      hcl.Range
}

// Way is the way of a request that takes one route.
type Way struct {
	Route     string
	Pattern   string
	Steps     []Step   // in the order in which they run
	Model     bool     // the body is a model call, which an upstream answers
	Upstreams []string // names of those that may get it; none: the gateway answers
	At        hcl.Range
	ReplayAt  hcl.Range // where it says how long replies are kept
}

// Step is one stage with a plugin.
type Step struct {
	Stage      string // "policy.tenant admit meter"
	Plugin     string
	Reply      bool     // it is shown the reply, else the request
	Body       bool     // with its body
	Headers    []string // it is shown; "*" for all
	Attributes []string // it is shown, those in expressions written for it among them
	Grants     []string
	Asks       []string // where it may send what it sees: "https://auth.example.com", "upstream.name"
	At         hcl.Range

	Fields []string // what all that is, by Check
}

// Receiver is an upstream, or the mail server, and whoever is behind it.
type Receiver struct {
	Name      string // of the upstream, or the mail server's host
	Post      bool   // it is the mail server
	Encrypted bool   // every endpoint is https
	Provider
	At hcl.Range
}

// By is what the receiver is called in uses.
func (r *Receiver) By() string {
	if r.Post {
		return "mail"
	}
	return "upstream." + r.Name
}

// posted are the fields that messages to people are made of.
func posted() []string {
	return []string{"person.email", "person.name", "person.mail", "person.links", "account.name"}
}

// Title is what people know the receiver as.
func (r *Receiver) Title() string {
	if r.Recipient != "" {
		return r.Recipient
	}
	return r.Name
}

// Act is what the program does with a field.
type Act string

// The acts.
const (
	Stores Act = "store"
	Logs   Act = "log"
	Traces Act = "trace"
	Shows  Act = "show"  // to a plugin
	Shares Act = "share" // with whoever is behind an upstream or the mail server, or with whom a plugin fetches from
)

// Use is one thing that the configuration makes the program do with a field.
type Use struct {
	Field string
	Act   Act
	By    string        // "store", "log", "traces", "plugin.NAME", "upstream.NAME" or "mail"
	Keep  time.Duration // of Stores
	Known bool          // whether Keep is
	Route string        // the first of those where it happens; empty: it is not a route's doing
	At    hcl.Range     // what makes the program do so
}

// collector makes uses of facts.
type collector struct {
	uses []Use
	seen map[[3]string]bool
	memo map[string]string // fields of attributes and headers
}

// add notes a use. One that is there already, for another route, says nothing new; stores are different in how long they keep.
func (c *collector) add(u Use) {
	key := [3]string{u.Field, string(u.Act), u.By + u.Keep.String()}
	if u.Field != "" && !c.seen[key] {
		c.seen[key] = true
		c.uses = append(c.uses, u)
	}
}

// collect says of every field what is done with it, and fills in the fields of every step.
func (f *Facts) collect() []Use {
	c := &collector{seen: map[[3]string]bool{}, memo: map[string]string{}}
	for _, s := range f.Stores {
		for _, r := range field.All() {
			if r.Feature == s.Feature {
				c.add(Use{Field: r.Name, Act: Stores, By: "store", Keep: s.Keep, Known: !s.Memory, At: s.At})
			}
		}
	}
	for _, r := range field.All() {
		if len(r.Log) > 0 || f.Access && len(r.Access) > 0 {
			c.add(Use{Field: r.Name, Act: Logs, By: "log", At: f.LogAt})
		}
		if f.Traces && len(r.Spans) > 0 {
			c.add(Use{Field: r.Name, Act: Traces, By: "traces", At: f.TracesAt})
		}
	}
	for i := range f.Receivers {
		if r := &f.Receivers[i]; r.Post {
			for _, name := range posted() {
				c.add(Use{Field: name, Act: Shares, By: r.By(), At: r.At})
			}
		}
	}
	for i := range f.Ways {
		w := &f.Ways[i]
		for j := range w.Steps {
			c.step(w, &w.Steps[j])
		}
		for _, u := range w.Upstreams {
			for _, name := range w.forwarded() {
				c.add(Use{Field: name, Act: Shares, By: "upstream." + u, Route: w.Route, At: w.At})
			}
		}
	}
	return c.uses
}

// step notes what one stage is shown, and that it may send on what it is shown.
func (c *collector) step(w *Way, s *Step) {
	for _, h := range s.Headers {
		if h == "*" {
			s.Fields = append(s.Fields, heads()...)
			continue
		}
		s.Fields = append(s.Fields, c.field("header "+h, func() string { return field.OfHeader(h) }))
	}
	for _, a := range s.Attributes {
		s.Fields = append(s.Fields, c.field(a, func() string { name, _ := field.OfAttribute(a); return name }))
	}
	if s.Body {
		s.Fields = append(s.Fields, w.body(s.Reply)...)
	}
	slices.Sort(s.Fields)
	s.Fields = slices.DeleteFunc(slices.Compact(s.Fields), func(name string) bool { return name == "" })
	for _, name := range s.Fields {
		c.add(Use{Field: name, Act: Shows, By: "plugin." + s.Plugin, Route: w.Route, At: s.At})
		if slices.Contains(s.Grants, "state") || slices.Contains(s.Grants, "cache") {
			c.add(Use{Field: name, Act: Stores, By: "plugin." + s.Plugin, Route: w.Route, At: s.At}) // it may: a rate limit's key, say
		}
		for _, to := range s.Asks {
			if !strings.HasPrefix(to, "upstream.") {
				to = "plugin." + s.Plugin
			}
			c.add(Use{Field: name, Act: Shares, By: to, Route: w.Route, At: s.At})
		}
	}
}

func (c *collector) field(key string, find func() string) string {
	name, ok := c.memo[key]
	if !ok {
		name = find()
		c.memo[key] = name
	}
	return name
}

// heads are the fields of a whole head.
func heads() []string {
	var list []string
	for _, f := range field.All() {
		if len(f.Headers) > 0 {
			list = append(list, f.Name)
		}
	}
	return list
}

// body is what the body of a request or reply is.
func (w *Way) body(reply bool) []string {
	switch {
	case reply && w.Model:
		return []string{"output"}
	case reply:
		return []string{"response.body"}
	case w.Model:
		return []string{"prompt", "reference_image"}
	}
	return []string{"request.body"}
}

// forwarded is what reaches an upstream. Of a model call it is the body, and what is answered to it; of other requests
// everything, with the client's address beside it.
func (w *Way) forwarded() []string {
	if w.Model {
		return append(w.body(false), w.body(true)...)
	}
	return append(append(w.body(false), "request.address", "call.details"), heads()...)
}

// rest is the field that stands for all headers, or attributes, that the register does not name; "" for other fields.
func rest(name string) string {
	for _, group := range []string{"header.", "attribute."} {
		if strings.HasPrefix(name, group) {
			return group + "other"
		}
	}
	return ""
}
