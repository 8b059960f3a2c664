package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrAllowance is wrapped by every error about what a key is to be allowed.
var ErrAllowance = errors.New("not something an API key can be held to")

// Bounds of an allowance.
const (
	MaxAllowedNames    = 64  // models, and routes
	MaxAllowedNetworks = 32  // networks
	MaxAllowedName     = 128 // octets of a model's or route's name
)

// Allowance is what an API key may be used for. The zero value, and nil, allow everything. One that is in use does not
// change: another takes its place.
type Allowance struct {
	Models   []string       `json:"models,omitempty"`   // public models; empty: all
	Routes   []string       `json:"routes,omitempty"`   // routes by name; empty: all
	Networks []netip.Prefix `json:"networks,omitempty"` // where calls may come from; empty: from anywhere
	Cap      Cap            `json:"cap,omitzero"`       // what all its calls may cost together
	Rate     Rate           `json:"rate,omitzero"`      // how often it may call
}

// Model reports whether a public model may be called.
func (a *Allowance) Model(name string) bool {
	return a == nil || len(a.Models) == 0 || slices.Contains(a.Models, name)
}

// Route reports whether a route may be used.
func (a *Allowance) Route(name string) bool {
	return a == nil || len(a.Routes) == 0 || slices.Contains(a.Routes, name)
}

// From reports whether calls may come from an address. An IPv4 address in its IPv6 form (::ffff:192.0.2.1) is the IPv4
// address; a zone does not count.
func (a *Allowance) From(address netip.Addr) bool {
	if a == nil || len(a.Networks) == 0 {
		return true
	}
	address = address.Unmap().WithZone("")
	for _, n := range a.Networks {
		if n.Contains(address) {
			return true
		}
	}
	return false
}

// Normal returns the allowance with sorted lists in which nothing is twice, sharing no memory with a. It refuses what is
// beyond a bound, and networks that ParseNetwork would not have given.
func (a Allowance) Normal() (Allowance, error) {
	var err error
	if a.Models, err = names("model", a.Models); err != nil {
		return Allowance{}, err
	}
	if a.Routes, err = names("route", a.Routes); err != nil {
		return Allowance{}, err
	}
	if len(a.Networks) > MaxAllowedNetworks {
		return Allowance{}, fmt.Errorf("%w: %d networks, the most is %d", ErrAllowance, len(a.Networks), MaxAllowedNetworks)
	}
	a.Networks = slices.Clone(a.Networks)
	for i, n := range a.Networks {
		if a.Networks[i], err = network(n); err != nil {
			return Allowance{}, err
		}
	}
	slices.SortFunc(a.Networks, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	a.Networks = slices.Clip(slices.Compact(a.Networks))
	if a.Cap != (Cap{}) && (a.Cap.Amount.Sign() <= 0 || a.Cap.Per >= Periods) {
		return Allowance{}, fmt.Errorf("%w: a cap of %s", ErrAllowance, a.Cap.Amount)
	}
	if a.Rate != (Rate{}) {
		if _, err := ParseRate(a.Rate.String()); err != nil {
			return Allowance{}, err
		}
	}
	return a, nil
}

// names checks a list of names of a kind.
func names(kind string, list []string) ([]string, error) {
	if len(list) > MaxAllowedNames {
		return nil, fmt.Errorf("%w: %d %ss, the most is %d", ErrAllowance, len(list), kind, MaxAllowedNames)
	}
	for _, name := range list {
		bad := func(r rune) bool { return !unicode.IsGraphic(r) }
		if name == "" || len(name) > MaxAllowedName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) || strings.TrimSpace(name) != name {
			return nil, fmt.Errorf("%w: the %s %s is not a name of 1 to %d octets", ErrAllowance, kind, shown(name), MaxAllowedName)
		}
	}
	return slices.Clip(slices.Compact(slices.Sorted(slices.Values(list)))), nil
}

// shown quotes what a caller gave, bounded.
func shown(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strconv.Quote(s)
}

// ParseNetwork reads a network, such as "203.0.113.0/24", or one address. An IPv4 network in its IPv6 form is the IPv4 network.
func ParseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%w: %s is neither a network, such as 203.0.113.0/24 or 2001:db8::/32, nor an address", ErrAllowance, shown(text))
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return network(p)
}

// network returns the one form of a network.
func network(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%w: a network without an address", ErrAllowance)
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%w: the network %s is IPv4 and more than IPv4: write it in one of the two", ErrAllowance, p)
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if whole := p.Masked(); whole != p {
		return netip.Prefix{}, fmt.Errorf("%w: the network %s begins at %s: write %s, or the address alone", ErrAllowance, p, whole.Addr(), whole)
	}
	return p, nil
}

// Period is a stretch of the calendar in UTC.
type Period uint8

// The periods.
const (
	Total   Period = iota // from the beginning on, without an end
	Day                   // from midnight
	Week                  // from Monday (ISO 8601)
	Month                 // from the first
	Periods               // how many there are
)

// String returns the word that Cap is written with.
func (p Period) String() string {
	switch p {
	case Total:
		return "total"
	case Day:
		return "day"
	case Week:
		return "week"
	case Month:
		return "month"
	}
	return "unknown"
}

// Start returns when the period that holds t began; the zero time for Total.
func (p Period) Start(t time.Time) time.Time {
	t = t.UTC()
	year, month, day := t.Date()
	switch p {
	case Day:
	case Week:
		day -= (int(t.Weekday()) + 6) % 7
	case Month:
		day = 1
	default:
		return time.Time{}
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// End returns when the period that holds t is over and the next one begins; the zero time for Total.
func (p Period) End(t time.Time) time.Time {
	start := p.Start(t)
	switch p {
	case Day:
		return start.AddDate(0, 0, 1)
	case Week:
		return start.AddDate(0, 0, 7)
	case Month:
		return start.AddDate(0, 1, 0)
	}
	return time.Time{}
}

// Cap is the most that calls may cost together in a period, in the ledger's currency. The zero value is no cap.
type Cap struct {
	Amount Amount
	Per    Period
}

// ParseCap reads a cap such as "5/day", "12.50/week", "100/month" or "20/total"; without a period it is a total.
func ParseCap(text string) (Cap, error) {
	number, word, has := strings.Cut(text, "/")
	c := Cap{}
	for ; has && c.Per < Periods && c.Per.String() != word; c.Per++ {
	}
	amount, err := ParseAmount(number)
	if err != nil || amount.Sign() <= 0 || c.Per == Periods {
		return Cap{}, fmt.Errorf("%w: the cap %s is not an amount above 0 per day, week, month or total, such as 5/day", ErrAllowance, shown(text))
	}
	c.Amount = amount
	return c, nil
}

// IsZero reports whether there is no cap.
func (c Cap) IsZero() bool { return c == Cap{} }

// String returns what ParseCap reads, and nothing without a cap.
func (c Cap) String() string {
	if c.IsZero() {
		return ""
	}
	return c.Amount.String() + "/" + c.Per.String()
}

// MarshalText writes the cap as String does.
func (c Cap) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *Cap) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*c = Cap{}
		return nil
	}
	*c, err = ParseCap(string(b))
	return err
}

// Rate is how many calls may be made in a time. All of them may come at once; after that they come as the time passes. The
// zero value is no limit.
type Rate struct {
	Calls int           // 1 to MaxRate
	Per   time.Duration // a second, a minute or an hour
}

// MaxRate is the most calls of a Rate.
const MaxRate = 1_000_000

// ParseRate reads a rate such as "60/minute"; the times are second, minute and hour.
func ParseRate(text string) (Rate, error) {
	number, word, _ := strings.Cut(text, "/")
	per := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour}[word]
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n < 1 || n > MaxRate || per == 0 {
		return Rate{}, fmt.Errorf("%w: the rate %s is not 1 to %d calls per second, minute or hour, such as 60/minute", ErrAllowance, shown(text), MaxRate)
	}
	return Rate{Calls: int(n), Per: per}, nil
}

// IsZero reports whether there is no limit.
func (r Rate) IsZero() bool { return r == Rate{} }

// String returns what ParseRate reads, and nothing without a limit.
func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	return strconv.Itoa(r.Calls) + "/" + r.Unit()
}

// Unit is the word for the time: second, minute or hour.
func (r Rate) Unit() string {
	switch r.Per {
	case time.Second:
		return "second"
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	}
	return r.Per.String() // no word that ParseRate takes
}

// MarshalText writes the rate as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *Rate) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*r = Rate{}
		return nil
	}
	*r, err = ParseRate(string(b))
	return err
}
