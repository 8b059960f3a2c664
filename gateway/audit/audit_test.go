package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// store is one in memory that can refuse what is committed, before or after it is.
type store struct {
	state.Store
	refuse, forget atomic.Bool
	commits        atomic.Int64
}

func (s *store) Commit(ctx context.Context, b *state.Batch) error {
	s.commits.Add(1)
	if s.refuse.Load() {
		return state.ErrFull
	}
	err := s.Store.Commit(ctx, b)
	if s.forget.Load() {
		return errors.New("the disk did not answer")
	}
	return err
}

var ownKey = bytes.Repeat([]byte{7}, 32)

func open(t testing.TB, st state.Store, change func(*Config)) *Log {
	t.Helper()
	c := Config{Store: st, Key: ownKey, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&c)
	}
	l, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func stored(t testing.TB) *store {
	s := &store{Store: memory.Open(memory.Config{})}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func entry(action string) Entry {
	return Entry{Actor: "uid:1000", Action: action, Subject: "acct_abcdefgh23456789", Outcome: Done, Detail: map[string]string{"amount": "12.50", "changed": "cap.rate"}}
}

func add(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(t.Context(), entry(fmt.Sprintf("account.do_%d", i))); err != nil {
			t.Fatal(err)
		}
	}
}

// verified verifies and wants problems of these kinds, each written "kind@entry", among them in this order and no others before them.
func verified(t testing.TB, l *Log, noted Mark, want ...string) *Report {
	t.Helper()
	r, err := l.Verify(t.Context(), noted)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range r.Problems {
		got = append(got, fmt.Sprintf("%s@%d", p.Kind, p.Entry))
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v: %+v", got, want, r.Problems)
	}
	if r.OK() != (len(want) == 0) {
		t.Errorf("OK is %t", r.OK())
	}
	return r
}

func TestLog(t *testing.T) {
	t.Parallel()
	st := stored(t)
	l := open(t, st, nil)
	if r := verified(t, l, Mark{}); r.Entries != 0 || l.Head().String() != "" {
		t.Errorf("%+v", r)
	}
	first, err := l.Append(t.Context(), entry("account.create"))
	if err != nil || first.Seq != 1 {
		t.Fatal(first, err)
	}
	act, err := l.Begin(t.Context(), Entry{Actor: "pers_abcdefgh23456789", Action: "key.create", Subject: "accounts"})
	if err != nil {
		t.Fatal(err)
	}
	if r := verified(t, l, first); r.Begun != 1 || r.Entries != 1 {
		t.Errorf("%+v", r)
	}
	if err := act.End(t.Context()); !errors.Is(err, ErrEntry) {
		t.Errorf("an action ended without an outcome: %v", err)
	}
	act.Entry.Outcome, act.Entry.Reason, act.Entry.Subject = Refused, "not_found", "key_abcdefgh23456789"
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := act.End(gone); err != nil { // also when whoever asked has gone
		t.Fatal(err)
	}
	if err := act.End(t.Context()); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	p, err := l.List(t.Context(), Filter{})
	if err != nil || len(p.Entries) != 2 || p.Next != 0 {
		t.Fatal(p, err)
	}
	e := p.Entries[0]
	if e.Seq != 2 || e.Actor != "pers_abcdefgh23456789" || e.Action != "key.create" || e.Subject != "key_abcdefgh23456789" || e.Outcome != Refused || e.Reason != "not_found" || time.Since(e.Time) > time.Minute {
		t.Errorf("%+v", e)
	}
	if e = p.Entries[1]; e.Seq != 1 || !maps.Equal(e.Detail, entry("x.y").Detail) {
		t.Errorf("%+v", e)
	}
	if r := verified(t, l, first); r.Begun != 0 || r.Entries != 2 || r.First != 1 || r.Head != l.Head() {
		t.Errorf("%+v", r)
	}
	mark, err := ParseMark(l.Head().String())
	if err != nil || mark != l.Head() {
		t.Error(mark, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry("a.b")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Verify(t.Context(), Mark{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	l = open(t, st, nil) // another run goes on
	add(t, l, 1)
	verified(t, l, mark)
	if l.Head().Seq != 3 {
		t.Error(l.Head())
	}
}

// Nothing but ids and words gets in, and errors do not repeat what was refused.
func TestEntryHoldsNoContent(t *testing.T) {
	t.Parallel()
	l := open(t, stored(t), nil)
	long := strings.Repeat("a", 200)
	for name, change := range map[string]func(*Entry){
		"no actor":        func(e *Entry) { e.Actor = "" },
		"an address":      func(e *Entry) { e.Actor = "ann@canary.test" },
		"a name":          func(e *Entry) { e.Actor = "Ann Canary" },
		"a user's name":   func(e *Entry) { e.Actor = "uid:Ann Canary" },
		"an action":       func(e *Entry) { e.Action = "Canary" },
		"a subject":       func(e *Entry) { e.Subject = "ann@canary.test" },
		"no subject":      func(e *Entry) { e.Subject = "" },
		"a word":          func(e *Entry) { e.Subject = "canary" },
		"an outcome":      func(e *Entry) { e.Outcome = "canary" },
		"a reason":        func(e *Entry) { e.Reason = "Canary said so" },
		"a detail":        func(e *Entry) { e.Detail = map[string]string{"note": "Canary said so"} },
		"a detail's name": func(e *Entry) { e.Detail = map[string]string{"Canary!": "a"} },
		"an e-mail":       func(e *Entry) { e.Detail = map[string]string{"to": "ann@canary.test"} },
		"an IPv4 address": func(e *Entry) { e.Detail = map[string]string{"from": "192.0.2.1"} },
		"an IPv6 address": func(e *Entry) { e.Detail = map[string]string{"from": "2001:db8::1"} },
		"long":            func(e *Entry) { e.Detail = map[string]string{"a": long} },
		"long action":     func(e *Entry) { e.Action = "a." + long },
		"many": func(e *Entry) {
			e.Detail = map[string]string{}
			for i := range MaxDetail + 1 {
				e.Detail[fmt.Sprintf("a%d", i)] = "1"
			}
		},
	} {
		e := entry("account.create")
		change(&e)
		_, err := l.Append(t.Context(), e)
		if !errors.Is(err, ErrEntry) || strings.Contains(strings.ToLower(err.Error()), "canary") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Begin(t.Context(), e); name != "an outcome" && !errors.Is(err, ErrEntry) {
			t.Errorf("%s begins: %v", name, err)
		}
	}
	for _, s := range []string{"ann@canary.test", "canary", "acct_", "acct_" + long, "Acct_abcdefgh23456789", "acct_abcdefgh23456789\n", "../../etc"} {
		if got := Subject(s); got != "unknown" {
			t.Errorf("Subject(%q) is %q", s, got)
		}
	}
	if l.Head().Seq != 0 {
		t.Error("something was written")
	}
}

func (s *store) raw(t testing.TB, seq uint64) []byte {
	t.Helper()
	b, err := s.Get(t.Context(), keyOf(seq))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *store) put(t testing.TB, key, value []byte) {
	t.Helper()
	var b state.Batch
	if value == nil {
		b.Delete(key)
	} else {
		b.Put(key, value)
	}
	if err := s.Store.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

// forge rewrites entries from first on so that they are whole and follow each other, as somebody would who knows the form.
func (s *store) forge(t testing.TB, first uint64, change func(*Entry)) {
	t.Helper()
	var prev *[sha256.Size]byte
	for seq := first; ; seq++ {
		b, err := s.Get(t.Context(), keyOf(seq))
		if errors.Is(err, state.ErrNotFound) {
			return
		}
		e, _, ok := parse(b)
		if err != nil || !ok {
			t.Fatal(err, ok)
		}
		if prev == nil {
			change(&e)
		} else {
			e.prev = *prev
		}
		s.put(t, keyOf(seq), e.seal())
		prev = &e.Sum
	}
}

// Whatever is done to the store, it is found and named, in the process that wrote it and in the next one.
func TestTamper(t *testing.T) {
	t.Parallel()
	evil := func(e *Entry) { e.Actor = "uid:0" }
	for name, c := range map[string]struct {
		do   func(t *testing.T, s *store)
		want []string // in the process that wrote the ten entries
		next []string // in the next one, after it wrote one more
	}{
		"change a letter": {func(t *testing.T, s *store) {
			b := s.raw(t, 4)
			s.put(t, keyOf(4), bytes.Replace(b, []byte("account"), []byte("accoumt"), 1))
		}, []string{"changed@4"}, nil},
		"change, with its hash": {func(t *testing.T, s *store) {
			e, _, _ := parse(s.raw(t, 4))
			evil(&e)
			s.put(t, keyOf(4), e.seal())
		}, []string{"unchained@5"}, nil},
		"change, with all hashes behind it": {func(t *testing.T, s *store) { s.forge(t, 4, evil) },
			[]string{"tail@10"}, []string{"unchained@11", "broken@11"}},
		"change the last": {func(t *testing.T, s *store) { s.forge(t, 10, evil) },
			[]string{"tail@10"}, []string{"unchained@11", "broken@11"}},
		"garble":     {func(t *testing.T, s *store) { s.put(t, keyOf(4), []byte("nonsense")) }, []string{"changed@4"}, nil},
		"drop":       {func(t *testing.T, s *store) { s.put(t, keyOf(4), nil) }, []string{"missing@4"}, nil},
		"drop first": {func(t *testing.T, s *store) { s.put(t, keyOf(1), nil) }, []string{"missing@1"}, nil},
		"drop three": {func(t *testing.T, s *store) {
			for i := range 3 {
				s.put(t, keyOf(uint64(4+i)), nil)
			}
		}, []string{"missing@4"}, nil},
		"drop and close the gap": {func(t *testing.T, s *store) {
			prev, _, _ := parse(s.raw(t, 3))
			for seq := uint64(4); seq < 10; seq++ {
				e, _, _ := parse(s.raw(t, seq+1))
				e.Seq, e.prev = seq, prev.Sum
				s.put(t, keyOf(seq), e.seal())
				prev = e
			}
			s.put(t, keyOf(10), nil)
		}, []string{"tail@10"}, []string{"missing@10", "broken@11"}},
		"insert and move on": {func(t *testing.T, s *store) {
			var list []Entry
			for seq := uint64(4); seq <= 10; seq++ {
				e, _, _ := parse(s.raw(t, seq))
				list = append(list, e)
			}
			prev, _, _ := parse(s.raw(t, 3))
			forged := prev
			evil(&forged)
			for i, e := range append([]Entry{forged}, list...) {
				e.Seq, e.prev = uint64(4+i), prev.Sum
				s.put(t, keyOf(e.Seq), e.seal())
				prev = e
			}
		}, []string{"tail@10", "tail@11"}, []string{"unchained@12", "broken@12"}},
		"insert a record":  {func(t *testing.T, s *store) { s.put(t, append(keyOf(4), 1), []byte("x")) }, []string{"inserted@5"}, nil},
		"insert elsewhere": {func(t *testing.T, s *store) { s.put(t, []byte("audit/other"), []byte("x")) }, []string{"inserted@0"}, nil},
		"insert before":    {func(t *testing.T, s *store) { s.put(t, keyOf(0), s.raw(t, 1)) }, []string{"inserted@0"}, nil},
		"swap": {func(t *testing.T, s *store) {
			four, five := s.raw(t, 4), s.raw(t, 5)
			s.put(t, keyOf(4), five)
			s.put(t, keyOf(5), four)
		}, []string{"moved@4", "moved@5", "unchained@6"}, nil},
		"repeat": {func(t *testing.T, s *store) { s.put(t, keyOf(5), s.raw(t, 4)) }, []string{"moved@5", "unchained@6"}, nil},
		"cut the tail": {func(t *testing.T, s *store) {
			s.put(t, keyOf(9), nil)
			s.put(t, keyOf(10), nil)
		}, []string{"tail@9"}, []string{"missing@9", "broken@11"}},
		"remove the head": {func(t *testing.T, s *store) { s.put(t, []byte(headAt), nil) },
			[]string{"head@0"}, []string{"broken@11"}},
		"remove the head and the tail": {func(t *testing.T, s *store) {
			s.put(t, []byte(headAt), nil)
			s.put(t, keyOf(10), nil)
		}, []string{"head@0"}, []string{"broken@10"}},
		"a head under another key": {func(t *testing.T, s *store) {
			s.put(t, keyOf(10), nil)
			e, _, _ := parse(s.raw(t, 9))
			other := &Log{key: bytes.Repeat([]byte{8}, 32)}
			s.put(t, []byte(headAt), other.encode(head{last: Mark{Seq: 9, Sum: e.Sum}, time: e.Time}))
		}, []string{"head@0"}, []string{"broken@10"}},
		"a head of nonsense": {func(t *testing.T, s *store) { s.put(t, []byte(headAt), []byte("head")) }, []string{"head@0"}, []string{"broken@11"}},
		"an entry behind the head": {func(t *testing.T, s *store) {
			e, _, _ := parse(s.raw(t, 10))
			e.Seq, e.prev = 11, e.Sum
			s.put(t, keyOf(11), e.seal())
		}, []string{"tail@11"}, []string{"unchained@12", "broken@12"}},
		"an entry far behind the head": {func(t *testing.T, s *store) {
			e, _, _ := parse(s.raw(t, 10))
			e.Seq, e.prev, e.Time = math.MaxUint64, e.Sum, e.Time.Add(time.Hour)
			s.put(t, keyOf(math.MaxUint64), e.seal())
		}, []string{"missing@11", fmt.Sprint("tail@", uint64(math.MaxUint64))}, []string{"missing@12", fmt.Sprint("tail@", uint64(math.MaxUint64))}},
		"empty it": {func(t *testing.T, s *store) {
			s.put(t, []byte(headAt), nil)
			for i := range 10 {
				s.put(t, keyOf(uint64(i+1)), nil)
			}
		}, []string{"head@0"}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stored(t)
			l := open(t, s, nil)
			add(t, l, 10)
			before := l.Head()
			verified(t, l, before)
			c.do(t, s)
			verified(t, l, Mark{}, c.want...)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			next := c.next
			if next == nil { // the end of the log is as it was
				next = c.want
			}
			l = open(t, s, nil)
			add(t, l, 1)
			verified(t, l, Mark{}, next...)
			// What was noted elsewhere tells of everything that touched the end.
			if r, err := l.Verify(t.Context(), before); err != nil || r.OK() {
				t.Errorf("the mark that was noted before does not tell: %+v, %v", r, err)
			}
			// The chain goes on from there: it is not found broken anew each time.
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, s, nil)
			verified(t, l, Mark{}, next...)
		})
	}
}

// A head and a log of an earlier day are one, and only somebody who remembers tells.
func TestPutBack(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	add(t, l, 5)
	var old bytes.Buffer
	if err := s.Backup(t.Context(), &old); err != nil {
		t.Fatal(err)
	}
	add(t, l, 5)
	noted := l.Head()
	older := &store{Store: memory.Open(memory.Config{})}
	defer older.Close()
	if err := older.Restore(t.Context(), &old); err != nil {
		t.Fatal(err)
	}
	// In the process that wrote it.
	for seq := uint64(6); seq <= 10; seq++ {
		s.put(t, keyOf(seq), nil)
	}
	b, err := older.Get(t.Context(), []byte(headAt))
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, []byte(headAt), b)
	verified(t, l, Mark{}, "head@6")
	// In another one.
	l = open(t, older, nil)
	verified(t, l, Mark{})
	verified(t, l, noted, "mark@10")
	for range 7 {
		if _, err := l.Append(t.Context(), entry("key.revoke")); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, l, noted, "mark@10")
	if _, err := ParseMark("10:abc"); !errors.Is(err, ErrMark) {
		t.Error(err)
	}
}

// Every octet of every record counts.
func TestEveryOctet(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	add(t, l, 3)
	for _, key := range [][]byte{keyOf(1), keyOf(2), keyOf(3), []byte(headAt)} {
		b, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << (i % 8)
			s.put(t, key, changed)
			if r, err := l.Verify(t.Context(), Mark{}); err != nil || r.OK() {
				t.Fatalf("%q: octet %d: %v", key, i, err)
			}
		}
		s.put(t, key, b)
	}
	verified(t, l, Mark{})
}

// What was under way at a crash becomes an entry, once.
func TestCrash(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	add(t, l, 1)
	for i := range 3 {
		if _, err := l.Begin(t.Context(), Entry{Actor: "uid:1000", Action: fmt.Sprintf("ledger.credit_%d", i), Subject: "acct_abcdefgh23456789"}); err != nil {
			t.Fatal(err)
		}
	}
	s.put(t, []byte(begunAt+"x"), []byte("nonsense"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.refuse.Store(true)
	l = open(t, s, nil) // on a full disk it opens all the same
	if r := verified(t, l, Mark{}); r.Begun != 4 {
		t.Errorf("%+v", r)
	}
	if _, err := l.Begin(t.Context(), entry("account.disable")); !errors.Is(err, state.ErrFull) {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.refuse.Store(false)
	for range 2 {
		l = open(t, s, nil)
		if r := verified(t, l, Mark{}); r.Begun != 0 || r.Entries != 5 {
			t.Errorf("%+v", r)
		}
		p, err := l.List(t.Context(), Filter{Actor: "uid:1000"})
		if err != nil || len(p.Entries) != 4 || p.Entries[0].Outcome != Unknown || p.Entries[2].Outcome != Unknown {
			t.Errorf("%+v, %v", p, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A commit of which nobody knows whether it came through does not break the chain either way.
func TestUnsure(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	add(t, l, 2)
	s.forget.Store(true)
	if _, err := l.Append(t.Context(), entry("account.create")); err == nil {
		t.Error("no error")
	}
	s.forget.Store(false)
	s.refuse.Store(true)
	if _, err := l.Append(t.Context(), entry("account.create")); !errors.Is(err, state.ErrFull) {
		t.Error(err)
	}
	s.refuse.Store(false)
	add(t, l, 2)
	if r := verified(t, l, Mark{}); r.Entries != 5 {
		t.Errorf("%+v", r)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Store: memory.Open(memory.Config{})}
		defer st.Close()
		l := open(t, st, nil)
		start := time.Now()
		const n = 1500
		for i := range n {
			e := entry("account.create")
			if i%3 == 0 {
				e.Actor = "pers_abcdefgh23456789"
			}
			if i%5 == 0 {
				e.Action = "key.revoke"
			}
			if i == 7 {
				e.Subject = "key_abcdefgh23456789"
			}
			if _, err := l.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		all := func(f Filter) (seqs []uint64) {
			for pages := 0; ; pages++ {
				p, err := l.List(t.Context(), f)
				if err != nil || pages > n {
					t.Fatal(pages, err)
				}
				if f.Limit > 0 && len(p.Entries) > f.Limit || len(p.Entries) > MaxList {
					t.Fatalf("a page of %d", len(p.Entries))
				}
				for _, e := range p.Entries {
					seqs = append(seqs, e.Seq)
				}
				if p.Next == 0 {
					break
				}
				f.Before = p.Next
			}
			if !slices.IsSortedFunc(seqs, func(a, b uint64) int { return int(b) - int(a) }) || len(slices.Compact(slices.Clone(seqs))) != len(seqs) {
				t.Error("not in order, or twice")
			}
			return seqs
		}
		for name, c := range map[string]struct {
			f    Filter
			want int
		}{
			"all":         {Filter{}, n},
			"small pages": {Filter{Limit: 7}, n},
			"actor":       {Filter{Actor: "pers_abcdefgh23456789", Limit: 10}, n / 3},
			"both":        {Filter{Actor: "pers_abcdefgh23456789", Action: "key.revoke"}, n / 15},
			"subject":     {Filter{Subject: "key_abcdefgh23456789"}, 1},
			"nobody":      {Filter{Actor: "uid:7"}, 0},
			"an hour":     {Filter{From: start.Add(100 * time.Second), To: start.Add(110 * time.Second), Limit: 3}, 10},
			"from":        {Filter{From: start.Add((n - 20) * time.Second)}, 20},
			"to":          {Filter{To: start.Add(20 * time.Second)}, 20},
			"before":      {Filter{Before: 11}, 10},
			"beyond":      {Filter{Before: 5 * n}, n},
		} {
			if got := all(c.f); len(got) != c.want {
				t.Errorf("%s: %d entries, want %d", name, len(got), c.want)
			}
		}
	})
}

// Entries go when their time is over; the rest stays verifiable, and what was wrong with those that went is told.
func TestRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		st := &store{Store: memory.Open(memory.Config{})}
		defer st.Close()
		l := open(t, st, func(c *Config) { c.Retain = 30 * day })
		add(t, l, 2500) // more than go in one batch
		old := l.Head()
		st.put(t, keyOf(1700), nil)
		st.put(t, append(keyOf(1701), 1), []byte("x"))
		st.put(t, keyOf(1702), []byte("nonsense"))
		time.Sleep(20 * day)
		add(t, l, 10)
		noted := l.Head()
		time.Sleep(9 * day)
		if r, err := l.Verify(t.Context(), old); err != nil || r.Entries != 2510 { // one is missing, one is too many
			t.Errorf("too early: %+v, %v", r, err)
		}
		time.Sleep(3 * day)
		r := verified(t, l, noted)
		if r.Entries != 11 || r.First != 2501 || r.Retired != 2500 {
			t.Errorf("%+v", r)
		}
		verified(t, l, old)
		verified(t, l, Mark{Seq: 3}, "mark@3")
		verified(t, l, Mark{Seq: 2500}, "mark@2500")
		p, err := l.List(t.Context(), Filter{Action: "audit.retire"})
		if err != nil || len(p.Entries) != 1 || p.Entries[0].Detail["removed"] != "2500" || p.Entries[0].Detail["faults"] != "3" || p.Entries[0].Detail["last"] != "2500" {
			t.Errorf("%+v, %v", p, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, st, func(c *Config) { c.Retain = 30 * day })
		add(t, l, 1)
		verified(t, l, noted)
		// The last entry stays, however old, and what cannot be read goes only with what follows it.
		st.put(t, keyOf(2505), []byte("nonsense"))
		time.Sleep(62 * day)
		if r := verified(t, l, Mark{}); r.Entries == 0 || r.Entries > 3 {
			t.Errorf("%+v", r)
		}
		// An entry put back where nothing is kept any more is found.
		st.put(t, keyOf(9), (&Entry{Seq: 9}).seal())
		verified(t, l, Mark{}, "inserted@9")
	})
}

// The clock may be put back; the entries stay in order.
func TestClock(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	add(t, l, 1)
	h := l.head
	h.time = time.Now().Add(time.Hour).Truncate(time.Millisecond)
	s.put(t, []byte(headAt), l.encode(h))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, s, nil)
	add(t, l, 2)
	verified(t, l, Mark{})
	p, err := l.List(t.Context(), Filter{From: time.Now().Add(30 * time.Minute)})
	if err != nil || len(p.Entries) != 2 {
		t.Error(p, err)
	}
}

// Many at once, with the pages and proofs of others between them; a group shares a commit.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := stored(t)
	l := open(t, s, nil)
	const writers, each = 32, 40
	var group, watch sync.WaitGroup
	stop := make(chan struct{})
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := l.Verify(t.Context(), Mark{}); err != nil || !r.OK() {
				t.Errorf("%+v, %v", r, err)
				return
			}
			if _, err := l.List(t.Context(), Filter{Limit: 10}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	seen := make([][]uint64, writers)
	for w := range writers {
		group.Go(func() {
			for range each {
				act, err := l.Begin(t.Context(), entry("account.create"))
				if err != nil {
					t.Error(err)
					return
				}
				act.Entry.Outcome = Done
				if err := act.End(t.Context()); err != nil {
					t.Error(err)
				}
				m, err := l.Append(t.Context(), entry("account.disable"))
				if err != nil {
					t.Error(err)
				}
				seen[w] = append(seen[w], m.Seq)
			}
		})
	}
	group.Wait()
	close(stop)
	watch.Wait()
	if r := verified(t, l, Mark{}); r.Entries != 2*writers*each || r.Begun != 0 {
		t.Errorf("%+v", r)
	}
	all := slices.Concat(seen...)
	slices.Sort(all)
	if len(slices.Compact(all)) != writers*each {
		t.Error("a number was given twice")
	}
	if n := s.commits.Load(); n >= 3*writers*each {
		t.Errorf("%d commits for %d requests: nothing shared one", n, 3*writers*each)
	}
}

// The same on a disk, closed and opened.
func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for run := range 2 {
		s, err := badger.Open(t.Context(), badger.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, s, nil)
		add(t, l, 20)
		if r := verified(t, l, Mark{}); r.Entries != uint64(20*(run+1)) {
			t.Errorf("%+v", r)
		}
		if err := errors.Join(l.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A fingerprint tells secrets apart and gives nothing away that could be checked without the key.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	a := open(t, stored(t), nil)
	b := open(t, stored(t), func(c *Config) { c.Key = bytes.Repeat([]byte{9}, 32) })
	same := open(t, stored(t), nil)
	if a.Fingerprint("one") != same.Fingerprint("one") || a.Fingerprint("one") == a.Fingerprint("two") || a.Fingerprint("one") == b.Fingerprint("one") {
		t.Error("fingerprints do not tell apart what they should")
	}
	if e := (Entry{Actor: "token:" + a.Fingerprint("one"), Action: "a.b", Subject: "gateway", Outcome: Done}); e.check() != nil {
		t.Error(e.check())
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"no store": {Key: ownKey}, "no key": {Store: stored(t)}, "a short key": {Store: stored(t), Key: ownKey[:31]}, "a negative time": {Store: stored(t), Key: ownKey, Retain: -1},
	} {
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	s := stored(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Store: s, Key: ownKey}); !errors.Is(err, state.ErrClosed) {
		t.Error(err)
	}
}

// There is one form of an entry: whatever can be read is written the same.
func FuzzParse(f *testing.F) {
	e := entry("account.create")
	e.Seq, e.Time = 7, time.UnixMilli(1)
	f.Add(e.seal())
	f.Add((&Entry{}).seal())
	f.Add(binary.BigEndian.AppendUint64([]byte{entryForm}, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, whole, ok := parse(b)
		if !ok {
			return
		}
		if err := e.check(); err != nil {
			t.Error(err)
		}
		sum := e.Sum
		again := e.seal()
		if (e.Sum == sum) != whole || !bytes.Equal(again[:len(again)-sha256.Size], b[:len(b)-sha256.Size]) {
			t.Errorf("%q is written %q", b, again)
		}
	})
}

func FuzzParseMark(f *testing.F) {
	f.Add("")
	f.Add(Mark{Seq: 3}.String())
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMark(text)
		if err != nil {
			return
		}
		if again, err := ParseMark(m.String()); err != nil || again != m {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, stored(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(b.Context(), entry("account.create")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	l := open(b, stored(b), nil)
	const n = 2000
	add(b, l, n)
	b.ReportAllocs()
	for b.Loop() {
		if r, err := l.Verify(b.Context(), Mark{}); err != nil || !r.OK() {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}

// What anybody can bring about is counted, and neither fills the disk nor waits for it.
func TestSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{Store: memory.Open(memory.Config{})}
		defer s.Close()
		l := open(t, s, nil)
		refused := func(subject string) Entry {
			return Entry{Actor: "unknown", Action: "person.signin", Subject: subject, Outcome: Refused, Reason: "credentials"}
		}
		again := func(n int, subject string) {
			for range n {
				if err := l.Seldom(t.Context(), refused(subject)); err != nil {
					t.Fatal(err)
				}
			}
		}
		counts := func() (list []string) {
			p, err := l.List(t.Context(), Filter{Action: "person.signin"})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Entries {
				list = append(list, e.Subject+" "+e.Detail["count"])
			}
			slices.Sort(list)
			return list
		}
		again(500, "unknown")
		again(3, "pers_abcdefgh23456789")
		synctest.Wait()
		if got := counts(); !slices.Equal(got, []string{"pers_abcdefgh23456789 1", "unknown 1"}) {
			t.Error(got)
		}
		time.Sleep(seldomEvery + time.Second)
		want := []string{"pers_abcdefgh23456789 1", "pers_abcdefgh23456789 2", "unknown 1", "unknown 499"}
		if got := counts(); !slices.Equal(got, want) {
			t.Error(got)
		}
		time.Sleep(3 * seldomEvery)
		if got := counts(); !slices.Equal(got, want) {
			t.Error("quiet, and yet", got)
		}
		if l.tallying.Lock(); len(l.tallies) != 0 {
			t.Errorf("%d tallies are kept", len(l.tallies))
		}
		l.tallying.Unlock()
		// Many at once, with the store out of order: nobody waits, memory is bounded, and all are counted in the end.
		s.refuse.Store(true)
		for i := range maxTallies + 100 { // those beyond are told apart no more
			again(1, fmt.Sprintf("pers_abcdefgh%08d", i))
		}
		if l.tallying.Lock(); len(l.tallies) > maxTallies+1 {
			t.Errorf("%d tallies", len(l.tallies))
		}
		l.tallying.Unlock()
		synctest.Wait()
		s.refuse.Store(false)
		again(7, "unknown")
		if err := l.Close(); err != nil { // what was tallied is settled
			t.Fatal(err)
		}
		if err := l.Seldom(t.Context(), refused("unknown")); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		l = open(t, s, nil)
		verified(t, l, Mark{})
		if e := refused("ann@canary.test"); !errors.Is(l.Seldom(t.Context(), e), ErrEntry) {
			t.Error("an address got in")
		}
		total := 0
		for f := (Filter{Action: "person.signin"}); ; {
			p, err := l.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Entries {
				n, err := strconv.Atoi(e.Detail["count"])
				if err != nil {
					t.Error(err)
				}
				total += n
			}
			if f.Before = p.Next; p.Next == 0 {
				break
			}
		}
		if want := 500 + 3 + maxTallies + 100 + 7; total != want {
			t.Errorf("%d counted", total)
		}
	})
}
