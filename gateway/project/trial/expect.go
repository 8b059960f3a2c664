package trial

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/project/world"
	"github.com/postern-gateway/postern/gateway/schema"
)

// outcome is what came of one exchange.
type outcome struct {
	x        *exchange.Exchange
	status   int // of the reply
	header   exchange.Header
	body     string
	upstream *received
	faults   []*plugin.Fault // in order
	meters   map[string]int64
	fetches  []world.Asked
	log      string
	world    *world.World
}

// received is the request that reached the upstream.
type received struct {
	header exchange.Header
	body   string
}

// expect reads what must come of an exchange as checks, each with the place that asks for it.
func (l *loader) expect(st *step, s *schema.Section) {
	st.fault = s.Word("fault")
	add := func(at hcl.Range, look func(o *outcome) string) {
		st.checks = append(st.checks, check{at: at, look: look})
	}
	text := func(name string, look func(o *outcome, want string) string) {
		if want := s.Text(name); s.Set(name) {
			add(s.Where(name), func(o *outcome) string { return look(o, want) })
		}
	}
	if want := int(s.Count("status")); s.Set("status") {
		add(s.Where("status"), func(o *outcome) string {
			if o.status != want {
				return fmt.Sprintf("the reply's status is %d, expected %d", o.status, want)
			}
			return ""
		})
	}
	text("code", func(o *outcome, want string) string {
		if o.x.Problem == nil {
			return fmt.Sprintf("no stage answered, expected code %q", want)
		}
		return differ("the answer's code", o.x.Problem.Code, want)
	})
	l.message(s, "reply", add, func(o *outcome) (exchange.Header, string, bool) { return o.header, o.body, true })
	for _, e := range s.Table("attributes") {
		if !schema.Textual(e.Value) {
			continue // an error of a local, which has been reported
		}
		name, want := l.plugin.Name+"."+e.Key, e.Value.AsString()
		add(e.At, func(o *outcome) string {
			got, ok := o.x.Attribute(name)
			if !ok {
				return fmt.Sprintf("there is no attribute %s, expected %q%s", name, want, there(o.x.Attributes))
			}
			return differ("attribute "+name, got, want)
		})
	}
	if want := s.Texts("targets"); s.Set("targets") {
		add(s.Where("targets"), func(o *outcome) string {
			var got []string
			for _, t := range o.x.Call.Targets {
				got = append(got, t.Upstream)
			}
			return differ("the list of targets", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
		})
	}
	for key, want := range l.sorted(s, "meters") {
		add(s.Where("meters"), func(o *outcome) string {
			return differ("meter "+key, fmt.Sprint(o.meters[key]), fmt.Sprint(want))
		})
	}
	for key, want := range l.sorted(s, "balances") {
		add(s.Where("balances"), func(o *outcome) string {
			return differ("the balance of "+key, fmt.Sprint(o.world.Balance(key)), fmt.Sprint(want))
		})
	}
	if want := s.Texts("fetches"); s.Set("fetches") {
		add(s.Where("fetches"), func(o *outcome) string {
			return fetches(o.fetches, want)
		})
	}
	for _, want := range s.Texts("log") {
		add(s.Where("log"), func(o *outcome) string {
			if !strings.Contains(o.log, want) {
				return fmt.Sprintf("the log does not hold %q:\n%s", want, clip(o.log))
			}
			return ""
		})
	}
	if i := s.One("identity"); i.Given {
		want := exchange.Identity{Account: i.Text("account"), Key: i.Text("key"), Name: i.Text("name"), Scopes: i.Texts("scopes")}
		scopes := i.Set("scopes")
		add(i.At, func(o *outcome) string { return identity(&o.x.Identity, &want, scopes) })
	}
	if u := s.One("upstream"); u.Given {
		called := u.Flag("called")
		add(u.At, func(o *outcome) string {
			switch {
			case called && o.upstream == nil:
				return "nothing reached the upstream"
			case !called && o.upstream != nil:
				return "the request reached the upstream, and was not to"
			}
			return ""
		})
		l.message(u, "request to the upstream", add, func(o *outcome) (exchange.Header, string, bool) {
			if o.upstream == nil {
				return nil, "", false
			}
			return o.upstream.header, o.upstream.body, true
		})
	}
}

// message reads what both messages can be asked for: headers, without, body and lacks.
func (l *loader) message(s *schema.Section, of string, add func(hcl.Range, func(*outcome) string), get func(*outcome) (exchange.Header, string, bool)) {
	for _, f := range l.header(s, "headers") {
		add(s.Where("headers"), func(o *outcome) string {
			h, _, ok := get(o)
			if !ok || slices.Contains(h, f) {
				return ""
			}
			if got, ok := h.Lookup(f.Name); ok {
				return differ("header "+f.Name+" of the "+of, got, f.Value)
			}
			return fmt.Sprintf("the %s has no header %s, expected %q", of, f.Name, f.Value)
		})
	}
	for _, name := range s.Texts("without") {
		name = strings.ToLower(name)
		add(s.Where("without"), func(o *outcome) string {
			h, _, ok := get(o)
			if got, has := h.Lookup(name); ok && has {
				return fmt.Sprintf("the %s has a header %s: %q", of, name, got)
			}
			return ""
		})
	}
	for _, c := range []struct {
		name, complaint string
		holds           bool
	}{{"body", "does not hold", true}, {"lacks", "holds", false}} {
		if want := s.Text(c.name); s.Set(c.name) {
			add(s.Where(c.name), func(o *outcome) string {
				_, body, ok := get(o)
				if !ok || strings.Contains(body, want) == c.holds {
					return ""
				}
				return fmt.Sprintf("the body of the %s %s %q:\n%s", of, c.complaint, want, clip(body))
			})
		}
	}
}

// sorted yields the members of an argument that is a map of numbers, in order.
func (l *loader) sorted(s *schema.Section, name string) func(yield func(string, int64) bool) {
	list := l.numbers(s, name)
	return func(yield func(string, int64) bool) {
		for _, key := range slices.Sorted(maps.Keys(list)) {
			if !yield(key, list[key]) {
				return
			}
		}
	}
}

func differ(what, got, want string) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("%s is %q, expected %q", what, got, want)
}

// fetches compares by name, or by name, method and URL where that is written.
func fetches(asked []world.Asked, want []string) string {
	got := make([]string, len(asked))
	for i := range asked {
		if got[i] = asked[i].String(); i < len(want) && want[i] == asked[i].Name {
			got[i] = want[i]
		}
	}
	return differ("the list of fetches", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
}

func identity(got, want *exchange.Identity, scopes bool) string {
	switch {
	case got.Account == "":
		return fmt.Sprintf("the caller is not known, expected account %q", want.Account)
	case got.Account != want.Account:
		return differ("the caller's account", got.Account, want.Account)
	case want.Key != "" && got.Key != want.Key:
		return differ("the caller's key", got.Key, want.Key)
	case want.Name != "" && got.Name != want.Name:
		return differ("the name of the caller's key", got.Name, want.Name)
	case scopes && !slices.Equal(got.Scopes, want.Scopes):
		return differ("the list of the caller's scopes", fmt.Sprintf("%q", got.Scopes), fmt.Sprintf("%q", want.Scopes))
	}
	return ""
}

// there lists what there is instead of what was looked for.
func there(fields []exchange.Field) string {
	if len(fields) == 0 {
		return "; there are none"
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return "; there are " + strings.Join(names, ", ")
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
