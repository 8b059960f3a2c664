package desync

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/postern-gateway/postern/gateway/desync/origin"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Lane is one way through Postern: its addresses, and what is behind them. It runs one case at a time.
type Lane struct {
	Name  string      // the origin's
	Plain string      // Postern's address for HTTP/1.1 and 2 in cleartext
	TLS   string      // and for HTTP/3
	Trust *tls.Config // for the second
	Tap   *Tap        // before the origin
	// Villain answers cases about an upstream's answers. Nil: the origin answers.
	Villain *Villain
	Record  *Record // what Postern says of its exchanges

	victim *plain // somebody else's connection, who uses the same connections to the origin
	number atomic.Int64
	seen   []seen
}

// seen is an answer that a client got, for holding it against the record.
type seen struct {
	what   string
	id     string // Postern's of the exchange
	status int
	own    bool // Postern's own answer
}

// Run plays a case over one protocol and says everything that is not as it must be.
func (l *Lane) Run(ctx context.Context, c *Case, over string) []string {
	r := &run{Lane: l, c: c, over: over, marker: fmt.Sprintf("%s-%d", l.Name, l.number.Add(1))}
	if l.Villain != nil && c.Hostile() {
		l.Villain.play(c, r.marker)
	}
	r.play(ctx)
	r.canary(ctx, nil) // somebody else's
	r.check()
	return r.faults
}

// run is one run of a case.
type run struct {
	*Lane
	c      *Case
	over   string
	marker string
	faults []string
	asks   int
	saw    []*Answer
	wants  []Want // those that fitted
}

func (r *run) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// play has the client do what the case says.
func (r *run) play(ctx context.Context) {
	c, err := r.dial(ctx)
	if err != nil {
		r.fault("connect: %v", err)
		return
	}
	defer c.close()
	early := r.c.Then == "" && r.c.Later == nil // the canary comes right behind, before anything is answered
	if err := r.send(c, early); err != nil {
		r.fault("send: %v", err)
		return
	}
	if r.c.Then == "reset" && r.over == "http1" {
		return // the client has gone: nobody waits for an answer
	}
	ended := false
	for i := range r.c.Want {
		a, err := c.answer()
		if err != nil {
			r.fault("answer %d: %v", i+1, err)
			return
		}
		want := r.judge(i, a)
		r.saw = append(r.saw, a)
		r.wants = append(r.wants, want)
		if a.Closed || want.Close {
			ended = true
			break
		}
	}
	if len(r.faults) > 0 {
		return
	}
	if r.c.Later != nil {
		if err := r.Villain.later(r.marker, r.Tap); err != nil {
			r.fault("the upstream could not send what it sends later: %v", err)
		}
	}
	p, http1 := c.(*plain)
	if http1 && (ended || r.c.Then == "half-close") {
		if err := p.ended(); err != nil {
			r.fault("after the answers: %v", err)
		}
		return
	}
	if ended {
		return
	}
	if early {
		r.expect(c, r.marker+".canary")
	}
	r.canary(ctx, c)
}

func (r *run) dial(ctx context.Context) (client, error) {
	switch r.over {
	case "http2":
		return dialFramed(ctx, r.Plain)
	case "http3":
		return dialDatagrams(ctx, r.TLS, r.Trust)
	}
	return dialPlain(ctx, r.Plain)
}

// send sends what the case says, and where early says so the canary right behind it.
func (r *run) send(c client, early bool) error {
	host := r.Plain
	if r.over == "http3" {
		host = r.TLS
	}
	canary := ordinary("GET", host, r.marker+".canary")
	switch p, http1 := c.(*plain); {
	case r.c.Ask != "":
		if err := c.ask(ordinary(r.c.Ask, host, r.marker+".1")); err != nil {
			return err
		}
	case http1:
		octets := []byte(expand(string(r.c.Octets), host, r.marker))
		methods := make([]string, 0, len(r.c.Want)+1)
		for i := range r.c.Want {
			methods = append(methods, r.c.wants(r.Name, i)[0].Method)
		}
		if early {
			octets = append(octets, raw(canary)...)
			methods = append(methods, "GET")
		}
		p.send(octets, methods...)
		p.finish(r.c.Then)
		return nil
	default:
		if err := c.ask(r.c.request(host, r.marker)); err != nil {
			return err
		}
	}
	if early {
		return c.ask(canary)
	}
	return nil
}

// request is a case's request over HTTP/2 or 3.
func (c *Case) request(host, marker string) *request {
	fields := func(list []exchange.Field) []exchange.Field {
		list = slices.Clone(list)
		for i := range list {
			list[i].Name, list[i].Value = expand(list[i].Name, host, marker), expand(list[i].Value, host, marker)
		}
		return list
	}
	r := &request{head: fields(c.Head), tail: fields(c.Tail), reset: c.Then == "reset"}
	for _, d := range c.Data {
		r.data = append(r.data, expand(d, host, marker))
	}
	return r
}

// ordinary is a request that nothing is wrong with.
func ordinary(method, host, marker string) *request {
	return &request{head: []exchange.Field{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/canary"},
		{Name: ":authority", Value: host}, {Name: "m", Value: marker},
	}}
}

// canary sends an ordinary request and expects its own answer: on c, or on the victim's connection.
func (r *run) canary(ctx context.Context, c client) {
	if c == nil {
		if r.victim == nil || r.victim.over {
			v, err := dialPlain(ctx, r.Plain)
			if err != nil {
				r.fault("connect the canary: %v", err)
				return
			}
			r.victim = v
		}
		c = r.victim
	}
	r.asks++
	marker := r.marker + ".canary" + strconv.Itoa(r.asks)
	if err := c.ask(ordinary("GET", r.Plain, marker)); err != nil {
		r.fault("canary: %v", err)
		return
	}
	r.expect(c, marker)
}

// expect reads the answer to a canary.
func (r *run) expect(c client, marker string) {
	a, err := c.answer()
	switch {
	case err != nil:
		r.fault("canary: %v", err)
		r.victim = nil
	case a.Status != 200 || a.Cut || !answers(a, marker):
		r.fault("the canary %s got %v", marker, a)
		r.victim = nil
	default:
		r.keep(marker, a)
	}
}

// answers reports whether an answer is to the request with this marker.
func answers(a *Answer, marker string) bool {
	return strings.HasPrefix(a.Header.Get("echo"), strings.SplitN(origin.Account(marker, "", 0, "", ""), ",", 2)[0]+",")
}

// judge holds an answer against what is expected, and returns the expectation that it fits.
func (r *run) judge(i int, a *Answer) Want {
	list := r.c.wants(r.Name, i)
	r.keep(strconv.Itoa(i+1), a)
	for _, w := range list {
		if r.over == "http1" && a.Status != 0 && !r.announced(a, w.Close) {
			continue
		}
		if w.fits(a, r.c.Hostile()) && (w.Method == "" || answers(a, fmt.Sprintf("%s.%d", r.marker, i+1))) {
			return w
		}
	}
	r.fault("answer %d is %v, want %+v", i+1, a, list)
	return list[0]
}

// announced reports whether an answer says rightly if it is the last of its connection.
func (r *run) announced(a *Answer, last bool) bool {
	says := a.Header.Has("connection", "close")
	old := bytes.Contains(r.c.Octets, []byte(" HTTP/1.0\r\n")) // where that is so unless something else is said
	return says == last || r.c.Then == "half-close" || a.Cut || old && last
}

// is reports whether a request reached the origin as wanted.
func (w *Want) is(m *message) bool {
	return m.method == w.Method && m.target == w.Target && (w.Length < 0 || w.Length == len(m.body))
}

// fits reports whether an answer is what is wanted.
func (w *Want) fits(a *Answer, hostile bool) bool {
	switch {
	case w.Status == 0 && w.Reset:
		return a.Reset && a.Status == 0
	case w.Status == 0:
		return a.Closed && a.Status == 0
	case w.Cut && a.Reset && a.Status == 0:
		return true // the head was still on its way
	case a.Status != w.Status || a.Cut != w.Cut:
		return false
	case hostile:
		return w.Length < 0 || w.Length == len(a.Body)
	}
	return (w.Method != "") == (a.Header.Get("echo") != "")
}

func (r *run) keep(what string, a *Answer) {
	id := a.Header.Get("postern-exchange")
	if a.Status == 0 || id == "" && r.over != "http1" && a.Status < 500 && a.Status >= 400 {
		return // or the protocol's own machinery has refused it
	}
	if id == "" {
		r.fault("answer %s does not say which exchange it belongs to: %v", what, a)
	}
	r.seen = append(r.seen, seen{
		what: r.c.Name + " over " + r.over + " " + what, id: id, status: a.Status,
		own: a.Header.Get("content-type") == exchange.ProblemType,
	})
}

// check holds what reached the origin against what is expected.
func (r *run) check() {
	r.faults = append(r.faults, r.Tap.Check(false)...)
	if r.c.Hostile() {
		reused := r.Villain.reused(r.marker)
		if len(r.wants) == 0 || len(r.faults) > 0 {
			return
		}
		r.fields(r.saw[0].Header)
		if once := r.c.Once || r.wants[0].Cut || r.wants[0].Status == 502; once && reused {
			r.fault("the upstream's connection was used again")
		}
		return
	}
	for i, w := range r.wants {
		m := r.Tap.take(fmt.Sprintf("%s.%d", r.marker, i+1))
		switch {
		case w.Method == "" && m != nil && r.saw[i].Header.Get("content-type") == exchange.ProblemType && r.saw[i].Status < 500:
			r.fault("the origin got what Postern refused: %s %s with %d octets", m.method, m.target, len(m.body))
		case w.Method == "":
		case m == nil:
			r.fault("request %d did not reach the origin whole", i+1)
		case !slices.ContainsFunc(r.c.wants(r.Name, i), func(w Want) bool { return w.is(m) }):
			r.fault("request %d reached the origin as %s %s with %d octets, want %s %s with %d", i+1, m.method, m.target, len(m.body), w.Method, w.Target, w.Length)
		case i == 0:
			r.fields(append(slices.Clone(m.header), m.trailer...))
		}
	}
}

// fields checks those that must and must not be there.
func (r *run) fields(h exchange.Header) {
	for _, f := range r.c.Present {
		f.Value = expand(f.Value, r.Plain, r.marker)
		if !slices.Contains(slices.Collect(h.Values(f.Name)), f.Value) {
			r.fault("no field %s: %s in %v", f.Name, f.Value, h)
		}
	}
	for _, name := range r.c.Absent {
		if v, ok := h.Lookup(name); ok {
			r.fault("there is a field %s: %s", name, v)
		}
	}
}

// Close ends the lane's own connection.
func (l *Lane) Close() {
	if l.victim != nil {
		l.victim.close()
	}
}

// Audit holds what clients and the tap saw against Postern's record of its exchanges, when Postern has shut down.
func (l *Lane) Audit(listeners ...string) []string {
	var faults []string
	entries := l.Record.of(listeners)
	attempts, whole := 0, 0
	for _, list := range entries {
		for _, e := range list {
			attempts += e.Attempts
			if e.Attempts > 0 && e.Problem == "" {
				whole++
			}
		}
	}
	for _, s := range l.seen {
		list := entries[s.id]
		switch {
		case len(list) == 1 && list[0].Status != s.status:
			faults = append(faults, fmt.Sprintf("%s got %d, the record says %d", s.what, s.status, list[0].Status))
		case len(list) > 1, len(list) == 0 && !s.own:
			faults = append(faults, fmt.Sprintf("%s: the record has exchange %s %d times", s.what, s.id, len(list)))
		}
	}
	// An attempt can end before anything of it was sent.
	if got := l.Tap.Totals(); got.Requests < whole || got.Requests+got.Broken > attempts {
		faults = append(faults, fmt.Sprintf("the origin was sent %d requests and %d beginnings of one, the record says %d exchanges and %d attempts", got.Requests, got.Broken, whole, attempts))
	}
	return faults
}
