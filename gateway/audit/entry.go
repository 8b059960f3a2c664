package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of an action.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused" // nothing was changed: it was a mistake, or not allowed
	Failed  Outcome = "failed"  // it was the gateway's fault; Reason says how
	Unknown Outcome = "unknown" // the process ended before the action did
)

// Entry is one action. It holds ids and the program's own words and nothing else: no name, no address, no content, so that
// erasing a person never needs to change it. Append and Begin refuse what does not look so.
type Entry struct {
	Seq     uint64            // its number, from 1; given by the log
	Time    time.Time         // UTC, to the millisecond, never before the entry before it; given by the log
	Actor   string            // "gateway", a person's id, "uid:1000" (a user of the system), "token:..." and "certificate:..." (marks of them), or "unknown"
	Action  string            // lower-case words with dots: "account.disable"
	Subject string            // the id of what it was done to, or one of the words that Subject knows
	Outcome Outcome           // what became of it
	Reason  string            // a lower-case word that says why, such as the code of the problem; may be empty
	Detail  map[string]string // words, numbers and ids by lower-case names, at most MaxDetail; may be nil
	Sum     [sha256.Size]byte // the hash that the next entry carries; given by the log

	prev [sha256.Size]byte // the sum of the entry before
}

// Bounds of an entry.
const (
	MaxDetail = 8  // members of Detail
	maxText   = 96 // octets of any text
)

// ErrEntry says that an entry holds what it must not hold. What that is stays out of the error, which may be logged.
var ErrEntry = errors.New("not an entry: only ids and words may stand in the audit log")

var (
	idPattern     = regexp.MustCompile(`^[a-z]{2,8}_[a-z0-9]{8,40}$`)
	actorPattern  = regexp.MustCompile(`^(gateway|unknown|pers_[a-z0-9]{8,40}|(uid|token|certificate):[a-z0-9]{1,64})$`)
	actionPattern = regexp.MustCompile(`^[a-z]+(\.[a-z][a-z0-9_]*)+$`)
	wordPattern   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	valuePattern  = regexp.MustCompile(`^-?[A-Za-z0-9][A-Za-z0-9_.:-]*$`)
)

// Subject returns text if an entry may have it as its subject, and "unknown" otherwise: what callers write where an id
// belongs may be anything.
func Subject(text string) string {
	switch text {
	case "accounts", "audit", "gateway", "ledger", "vault":
		return text
	}
	if len(text) <= maxText && idPattern.MatchString(text) {
		return text
	}
	return "unknown"
}

// check returns ErrEntry, naming the part that is wrong.
func (e *Entry) check() error {
	fits := func(p *regexp.Regexp, s string) bool { return len(s) <= maxText && p.MatchString(s) }
	wrong := ""
	switch {
	case !fits(actorPattern, e.Actor):
		wrong = "actor"
	case !fits(actionPattern, e.Action):
		wrong = "action"
	case e.Subject != Subject(e.Subject):
		wrong = "subject"
	case !slices.Contains([]Outcome{Done, Refused, Failed, Unknown}, e.Outcome):
		wrong = "outcome"
	case e.Reason != "" && !fits(wordPattern, e.Reason):
		wrong = "reason"
	case len(e.Detail) > MaxDetail:
		wrong = "detail"
	}
	for name, value := range e.Detail {
		if _, err := netip.ParseAddr(value); err == nil || !fits(wordPattern, name) || !fits(valuePattern, value) {
			wrong = "detail"
		}
	}
	if wrong != "" {
		return fmt.Errorf("%w: the %s", ErrEntry, wrong)
	}
	return nil
}

// The canonical form of an entry, which is also what is stored: 1, the number and the time (Unix milliseconds) in 8 octets
// each, the sum of the entry before, then actor, action, subject, outcome and reason, each behind its length in one
// octet, the number of details in one octet and their names and values, by name, each behind its length; and last the
// SHA-256 of the line "postern audit entry 1" and everything before it.
const entryForm = 1

const entryDomain = "postern audit entry 1\n"

// seal gives the entry its sum and returns its canonical form.
func (e *Entry) seal() []byte {
	b := make([]byte, 0, 256)
	b = binary.BigEndian.AppendUint64(append(b, entryForm), e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMilli()))
	b = append(b, e.prev[:]...)
	text := func(s string) { b = append(append(b, byte(len(s))), s...) }
	for _, s := range []string{e.Actor, e.Action, e.Subject, string(e.Outcome), e.Reason} {
		text(s)
	}
	b = append(b, byte(len(e.Detail)))
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		text(name)
		text(e.Detail[name])
	}
	e.Sum = sumOf(b)
	return append(b, e.Sum[:]...)
}

func sumOf(form []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(entryDomain), form...))
}

// parse reads a canonical form; ok is false for anything else. whole says whether the sum is that of the rest.
func parse(b []byte) (e Entry, whole, ok bool) {
	const fixed = 1 + 8 + 8 + sha256.Size
	if len(b) < fixed+sha256.Size || b[0] != entryForm {
		return e, false, false
	}
	form := b[:len(b)-sha256.Size]
	e.Seq, e.Time = binary.BigEndian.Uint64(b[1:]), time.UnixMilli(int64(binary.BigEndian.Uint64(b[9:]))).UTC()
	e.prev, e.Sum = [sha256.Size]byte(b[17:]), [sha256.Size]byte(b[len(form):])
	rest, ok := form[fixed:], true
	octet := func() (n int) {
		if ok = ok && len(rest) > 0; ok {
			n, rest = int(rest[0]), rest[1:]
		}
		return n
	}
	text := func() (s string) {
		n := octet()
		if ok = ok && n <= maxText && n <= len(rest); ok {
			s, rest = string(rest[:n]), rest[n:]
		}
		return s
	}
	e.Actor, e.Action, e.Subject, e.Outcome, e.Reason = text(), text(), text(), Outcome(text()), text()
	last := ""
	for n := octet(); n > 0 && ok; n-- {
		name, value := text(), text()
		if e.Detail == nil {
			e.Detail = map[string]string{}
		}
		ok = ok && strings.Compare(name, last) > 0
		e.Detail[name], last = value, name
	}
	ok = ok && len(rest) == 0 && e.check() == nil
	return e, sumOf(form) == e.Sum, ok
}
