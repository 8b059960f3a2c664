package privacy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/privacy/field"
	"github.com/postern-gateway/postern/gateway/schema"
)

// Check takes what the rest of the configuration does and reports what the policy does not allow: fields of no class,
// classes that go where they may not, and what is kept for too long. A class whose retention is not written takes the
// longest there is, so that what people read is true.
func (p *Policy) Check(f *schema.Findings, facts Facts) {
	p.Facts = facts
	p.Uses = p.Facts.collect()
	type tooLong struct {
		class string
		keep  time.Duration
		at    hcl.Range
	}
	told := map[tooLong]bool{}
	for i := range p.Uses {
		u := &p.Uses[i]
		c := p.ClassOf(u.Field)
		if c == nil {
			p.undeclared(f, u)
			continue
		}
		if what := (tooLong{c.Name, u.Keep, u.At}); u.Act == Stores && u.Known && !told[what] {
			told[what] = p.kept(f, c, u.Field, u.Keep, u.At)
		}
		if u.Act == Shares && c.Recipients != nil && !slices.Contains(c.Recipients, u.By) {
			f.Errorf(u.At, "Not a recipient", "%s would receive %s, of the class %s, whose recipients do not name it. Add it to them (%s), or keep the data from it.", u.By, u.Field, c.Name, c.Range)
		}
	}
	for i := range p.Facts.Receivers {
		p.receiver(f, &p.Facts.Receivers[i])
	}
}

// undeclared reports a field of no class.
func (p *Policy) undeclared(f *schema.Findings, u *Use) {
	class := "account"
	if known, ok := field.Find(u.Field); ok {
		class = known.Class
	} else if other, ok := field.Find(rest(u.Field)); ok {
		class = other.Class
	}
	does := map[Act]string{
		Stores: "The program would store", Logs: "The program would log", Traces: "The program would send spans away with",
		Shows: u.By + " would see", Shares: u.By + " would receive",
	}[u.Act]
	f.Errorf(u.At, "Undeclared field", "%s %s, which belongs to no data class. Add %q to the fields of one, such as data_class %q, or do without what needs it.", does, u.Field, u.Field, class)
}

// kept compares how long a field is kept with what its class says, and tells whether it reported something.
func (p *Policy) kept(f *schema.Findings, c *Class, name string, keep time.Duration, at hcl.Range) bool {
	switch {
	case !longer(keep, c.Retention):
		return false
	case c.fixed && keep == WithAccount:
		f.Errorf(c.retention, "Retention too short", "The program keeps %s and what else belongs to the data class %s for as long as the account exists: write retention = \"0d\", or give it a class of its own.", name, c.Name)
	case c.fixed:
		f.Errorf(at, "Kept for too long", "This keeps fields of the data class %s %s, and its retention is %s (%s). Keep them for less, or say so there.", c.Name, Span(keep).In("en"), Span(c.Retention).In("en"), c.retention)
	default:
		c.Retention = keep
		return false
	}
	return true
}

// receiver checks whoever is behind an upstream against the classes that would reach it. What messages to people hold is
// decided by the program, so of the mail server there is nothing to say but who it is.
func (p *Policy) receiver(f *schema.Findings, r *Receiver) {
	if r.Post {
		return
	}
	var gets []*Class
	why := map[*Class]*Use{}
	for i := range p.Uses {
		u := &p.Uses[i]
		if c := p.ClassOf(u.Field); c != nil && u.By == r.By() && why[c] == nil {
			gets, why[c] = append(gets, c), u
		}
	}
	if p.Written && !r.Limited && gets != nil {
		f.Errorf(r.At, "Missing shares", "With a privacy block every upstream says what it may receive. If upstream.%s may have what the routes bring it, write shares = [%s].", r.Name, strings.Join(names(gets), ", "))
	}
	for _, c := range gets {
		if !r.May(c.Name) {
			f.Errorf(r.sharesAt, "Not shared", "route.%s brings upstream.%s %s, of the class %s, which shares does not name. Add %s to it, or lead the route elsewhere.", why[c].Route, r.Name, why[c].Field, c.Name, c.Name)
			continue
		}
		if r.Trains() && !c.Needs() {
			f.Errorf(r.trainingAt, "Training without consent", "upstream.%s trains on what it receives, %s among it, and that needs consent: write basis = consent in data_class %q, or send it to a provider that does not train.", r.Name, c.Name, c.Name)
		}
		if r.Known && c.fixed && r.Retention > 0 && c.Retention > 0 && longer(r.Retention, c.Retention) {
			f.Errorf(r.retentionAt, "Kept for too long", "upstream.%s keeps what it receives %s, and the retention of the data class %s is %s (%s). Send it elsewhere, or say so there.", r.Name, Span(r.Retention).In("en"), c.Name, Span(c.Retention).In("en"), c.retention)
		}
	}
}

func names(list []*Class) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

// Span is how long something is kept, as people say it.
func Span(d time.Duration) field.Text {
	switch {
	case d == WithAccount:
		return field.Text{En: "for as long as the account exists", Zh: "账户存续期间"}
	case d < 0:
		return field.Text{En: "without end", Zh: "长期保存"}
	case d >= day && d%day == 0:
		return count(int64(d/day), "day", "天")
	case d >= time.Hour && d%time.Hour == 0:
		return count(int64(d/time.Hour), "hour", "小时")
	case d >= time.Minute && d%time.Minute == 0:
		return count(int64(d/time.Minute), "minute", "分钟")
	}
	return field.Text{En: "for " + d.String(), Zh: d.String()}
}

func count(n int64, en, zh string) field.Text {
	if n != 1 {
		en += "s"
	}
	return field.Text{En: fmt.Sprintf("for %d %s", n, en), Zh: fmt.Sprintf("%d %s", n, zh)}
}
