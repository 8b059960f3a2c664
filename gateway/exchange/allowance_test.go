package exchange

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCaps(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"5/day": "5.00/day", "12.50/week": "12.50/week", "100/month": "100.00/month", "20/total": "20.00/total", "20": "20.00/total", "0.000000000001/day": "0.000000000001/day",
	} {
		c, err := ParseCap(text)
		if err != nil || c.String() != want {
			t.Errorf("%s: %s, %v", text, c, err)
		}
		if again, err := ParseCap(c.String()); err != nil || again != c {
			t.Errorf("%s: %s, %v", c, again, err)
		}
	}
	for _, text := range []string{"", "/day", "0/day", "-5/day", "5/", "5/days", "5/Day", "5/day/day", "5 /day", "5/year", "5/periods", "5/unknown", "1e3/day", "five", "0.0000000000001/day", strings.Repeat("9", 40) + "/day"} {
		if c, err := ParseCap(text); !errors.Is(err, ErrAllowance) || c != (Cap{}) || len(err.Error()) > 300 {
			t.Errorf("%q: %s, %v", text, c, err)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"1/second", "60/minute", "1000000/hour"} {
		if r, err := ParseRate(text); err != nil || r.String() != text {
			t.Errorf("%s: %s, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "60", "0/minute", "-1/minute", "+1/minute", "1000001/hour", "1.5/second", "60/min", "60/day", "/minute", "99999999999999999999/hour"} {
		if r, err := ParseRate(text); !errors.Is(err, ErrAllowance) || r != (Rate{}) {
			t.Errorf("%q: %s, %v", text, r, err)
		}
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"203.0.113.0/24": "203.0.113.0/24", "203.0.113.7": "203.0.113.7/32", "2001:db8::/32": "2001:db8::/32", "2001:DB8::1": "2001:db8::1/128",
		"::ffff:203.0.113.0/120": "203.0.113.0/24", "::ffff:203.0.113.7": "203.0.113.7/32", "::ffff:0:0/96": "0.0.0.0/0", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
	} {
		n, err := ParseNetwork(text)
		if err != nil || n.String() != want {
			t.Errorf("%s: %s, %v", text, n, err)
		}
	}
	for _, text := range []string{
		"", "10", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.1/8", "2001:db8::1/32", "fe80::1%eth0", "fe80::%eth0/64", "example.com", "10.0.0.0/24 ", "::ffff:10.0.0.0/90", "1.2.3.4/24/24",
		"010.0.0.1", strings.Repeat("1", 100_000),
	} {
		if n, err := ParseNetwork(text); !errors.Is(err, ErrAllowance) || n.IsValid() || len(err.Error()) > 400 {
			t.Errorf("%.50q: %s, %v", text, n, err)
		}
	}
}

func TestAllowance(t *testing.T) {
	t.Parallel()
	var all *Allowance
	for _, a := range []*Allowance{all, {}} {
		if !a.Model("x") || !a.Route("x") || !a.From(netip.MustParseAddr("192.0.2.1")) || !a.From(netip.Addr{}) {
			t.Error("no restriction restricts")
		}
	}
	network := func(text string) netip.Prefix {
		n, err := ParseNetwork(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, err := Allowance{
		Models: []string{"small", "large", "small"}, Routes: []string{"chat"},
		Networks: []netip.Prefix{network("2001:db8::/32"), network("203.0.113.0/24"), network("::ffff:203.0.113.0/120")},
	}.Normal()
	if err != nil || !slices.Equal(a.Models, []string{"large", "small"}) || len(a.Networks) != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	if !a.Model("small") || a.Model("smal") || a.Model("") || a.Model("SMALL") || !a.Route("chat") || a.Route("embed") {
		t.Error("models or routes")
	}
	for address, want := range map[string]bool{
		"203.0.113.9": true, "::ffff:203.0.113.9": true, "203.0.114.1": false, "2001:db8::5": true, "2001:db8::5%eth0": true, "2001:db9::": false, "::203.0.113.9": false,
	} {
		if a.From(netip.MustParseAddr(address)) != want {
			t.Errorf("from %s", address)
		}
	}
	if a.From(netip.Addr{}) {
		t.Error("from nowhere")
	}
	many := func(n int, format func(int) string) (list []string) {
		for i := range n {
			list = append(list, format(i))
		}
		return list
	}
	word := func(i int) string { return strings.Repeat("m", i+1) }
	for name, bad := range map[string]Allowance{
		"too many models": {Models: many(MaxAllowedNames+1, word)}, "a long model": {Models: []string{strings.Repeat("m", MaxAllowedName+1)}}, "no name": {Routes: []string{""}},
		"a line": {Models: []string{"a\nb"}}, "not UTF-8": {Models: []string{"\xff"}}, "a space at its end": {Routes: []string{"chat "}}, "a direction": {Models: []string{"a\u202eb"}},
		"too many networks": {Networks: make([]netip.Prefix, MaxAllowedNetworks+1)}, "no network": {Networks: make([]netip.Prefix, 1)},
		"bits beyond": {Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}, "a negative cap": {Cap: Cap{Amount: Pico(-1)}}, "a period that is none": {Cap: Cap{Amount: Pico(1), Per: Periods}},
		"a cap of nothing": {Cap: Cap{Per: Day}}, "a rate of nothing": {Rate: Rate{Per: time.Minute}}, "another time": {Rate: Rate{Calls: 1, Per: time.Millisecond}},
	} {
		if _, err := bad.Normal(); !errors.Is(err, ErrAllowance) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is written as JSON is read again, and what is not there is not written.
func TestAllowanceJSON(t *testing.T) {
	t.Parallel()
	a := Allowance{Models: []string{"small"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Cap: Cap{Amount: Pico(5e12), Per: Day}, Rate: Rate{Calls: 60, Per: time.Minute}}
	b, err := json.Marshal(a)
	if want := `{"models":["small"],"networks":["10.0.0.0/8"],"cap":"5.00/day","rate":"60/minute"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	var again Allowance
	if err := json.Unmarshal(b, &again); err != nil || again.Cap != a.Cap || again.Rate != a.Rate || !slices.Equal(again.Networks, a.Networks) {
		t.Errorf("%+v, %v", again, err)
	}
	if b, err := json.Marshal(Allowance{}); err != nil || string(b) != "{}" {
		t.Errorf("%s, %v", b, err)
	}
	for _, text := range []string{`{"cap":"5/year"}`, `{"cap":5}`, `{"rate":"1"}`, `{"networks":["x"]}`} {
		if err := json.Unmarshal([]byte(text), &again); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	if err := json.Unmarshal([]byte(`{"cap":"","rate":""}`), &again); err != nil || !again.Cap.IsZero() || !again.Rate.IsZero() {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, test := range []struct {
		per              Period
		now, start, next string
	}{
		{Day, "2026-11-24T23:59:59Z", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"},
		{Day, "2026-11-25T01:00:00+02:00", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"}, // UTC, wherever the gateway stands
		{Week, "2026-11-29T12:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
		{Week, "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"},
		{Week, "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"},
		{Month, "2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
	} {
		if start, next := test.per.Start(at(test.now)), test.per.End(at(test.now)); !start.Equal(at(test.start)) || !next.Equal(at(test.next)) {
			t.Errorf("%s at %s: %s to %s", test.per, test.now, start, next)
		}
	}
	if !Total.Start(time.Now()).IsZero() || !Total.End(time.Now()).IsZero() {
		t.Error("the total has an end")
	}
}

// No text makes a parser panic, and what is read is written in a way that is read as the same.
func FuzzAllowance(f *testing.F) {
	for _, s := range []string{"5/day", "12.50/week", "0.000000000001", "60/minute", "10.0.0.0/8", "::ffff:10.0.0.0/104", "fe80::1%eth0", "::/0", "-1/day", "5/", "999999999999999/month", "1000000/hour"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseCap(text); err == nil {
			if again, err := ParseCap(c.String()); err != nil || again != c || c.Amount.Sign() <= 0 || c.Per >= Periods {
				t.Errorf("%q: %s, %s, %v", text, c, again, err)
			}
		}
		if r, err := ParseRate(text); err == nil {
			if again, err := ParseRate(r.String()); err != nil || again != r || int64(r.Per)/int64(r.Calls) <= 0 {
				t.Errorf("%q: %s, %s, %v", text, r, again, err)
			}
		}
		if n, err := ParseNetwork(text); err == nil {
			if again, err := ParseNetwork(n.String()); err != nil || again != n || n != n.Masked() || n.Addr().Is4In6() {
				t.Errorf("%q: %s, %s, %v", text, n, again, err)
			}
			if a := (Allowance{Networks: []netip.Prefix{n}}); !a.From(n.Addr()) {
				t.Errorf("%s does not hold its first address", n)
			}
		}
		if a, err := (Allowance{Models: []string{text}}).Normal(); err == nil && !a.Model(text) {
			t.Errorf("%q is not allowed by itself", text)
		}
	})
}
