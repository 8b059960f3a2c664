package usage

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger/record"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// clock is a clock that is moved by hand.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC).UnixMicro())
	return c
}
func (c *clock) now() time.Time           { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) advance(by time.Duration) { c.at.Add(by.Microseconds()) }

// journal plays the ledger.
type journal struct {
	mu      sync.Mutex
	entries []record.Entry
}

func (j *journal) Since(_ context.Context, seq uint64) iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		j.mu.Lock()
		list := slices.Clone(j.entries)
		j.mu.Unlock()
		for _, e := range list {
			if e.Seq >= seq && !yield(e, nil) {
				return
			}
		}
	}
}

// charge adds a charge and returns its number.
func (j *journal) charge(at time.Time, account, exchangeID string, pico int64) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	seq := uint64(len(j.entries) + 1)
	e := record.Entry{Seq: seq, Time: at, Kind: record.Charge, From: account, To: record.Revenue, Amount: exchange.Pico(pico), Ref: fmt.Sprint("hold-", seq), Model: "small", Exchange: exchangeID}
	e.Usage.Units[exchange.Input], e.Usage.Units[exchange.Output] = 10, 20
	j.entries = append(j.entries, e)
	return seq
}

// world is a book with what it needs.
type world struct {
	*Book
	store  state.Store
	ledger *journal
	clock  *clock
}

func open(t testing.TB, w *world, change func(*Config)) *world {
	t.Helper()
	if w == nil {
		w = &world{store: memory.Open(memory.Config{}), ledger: new(journal), clock: newClock()}
	}
	c := Config{Store: w.store, Ledger: w.ledger, Now: w.clock.now, Every: time.Hour, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	var err error
	if w.Book, err = Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Book.Close() })
	return w
}

// call is a charged call that has ended, recorded unless lost.
func (w *world) call(account string, i int, lost bool) Record {
	began := w.clock.now()
	r := Record{
		ID: fmt.Sprint("edge-1-", i), Time: began, Account: account, Key: "key_1", Route: "chat", Model: "small", Status: 200,
		Took: 1500 * time.Millisecond, First: 200 * time.Millisecond, Amount: exchange.Pico(int64(i + 1)),
	}
	r.Usage.Units[exchange.Input], r.Usage.Units[exchange.Output] = 10, 20
	r.Entry = w.ledger.charge(w.clock.now(), account, r.ID, int64(i+1))
	r.Receipt = fmt.Sprint("hold-", r.Entry)
	if !lost {
		w.Add(&r)
	}
	w.clock.advance(time.Second)
	return r
}

func (w *world) all(t testing.TB, account string) (list []Record) {
	t.Helper()
	for r, err := range w.Export(t.Context(), account, Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func (w *world) proven(t testing.TB) *Report {
	t.Helper()
	rep, err := w.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Problems) > 0 {
		t.Errorf("it does not add up: %v", rep.Problems)
	}
	return rep
}

func TestRecords(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	first := w.call("a", 0, false)
	refused := Record{ID: "edge-1-r", Time: w.clock.now(), Account: "a", Key: "key_2", Route: "chat", Model: "small", Status: 402, Took: time.Millisecond}
	w.Add(&refused)
	w.call("b", 1, false)
	got := w.all(t, "a")
	if len(got) != 2 || got[0] != refused || got[1] != first {
		t.Errorf("%+v", got)
	}
	if len(w.all(t, "b")) != 1 || len(w.all(t, "c")) != 0 {
		t.Error("accounts are mixed up")
	}
	sums, err := w.Sums(t.Context(), "a", Query{Step: Day})
	if err != nil || len(sums) != 1 {
		t.Fatal(sums, err)
	}
	if s := sums[0]; s.Calls != 2 || s.Errors != 1 || s.Prompt != 10 || s.Completion != 20 || s.Amount != exchange.Pico(1) || s.Durations.Count() != 2 {
		t.Errorf("%+v", s)
	}
	if rep := w.proven(t); rep.Records != 3 || rep.Charges != 2 || rep.Accounts != 2 {
		t.Errorf("%+v", rep)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	w.call("a", 0, false)
	if err := w.Book.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Page(t.Context(), "a", Filter{}, 10, ""); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := w.Book.Close(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	w.Add(&Record{ID: "late", Account: "a", Time: w.clock.now()}) // nothing breaks
	w = open(t, w, nil)
	if n := len(w.all(t, "a")); n != 1 {
		t.Errorf("%d records outlive the process, want 1", n)
	}
	w.proven(t)
}

// Pages go through all records once, whatever is added meanwhile, and cursors are worth nothing elsewhere.
func TestPage(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	for i := range 250 {
		r := Record{
			ID: fmt.Sprint("x", i), Time: w.clock.now(), Account: "a", Key: fmt.Sprint("key_", i%2), Route: []string{"chat", "files", "images"}[i%3],
			Model: []string{"small", "large"}[i%2], Status: []int{200, 429, 404, 500, 200}[i%5],
		}
		w.Add(&r)
		if i%4 > 0 { // some have the same time
			w.clock.advance(time.Minute)
		}
	}
	start := newClock().now()
	for _, test := range []struct {
		name   string
		filter Filter
		want   int
	}{
		{"all", Filter{}, 250}, {"key", Filter{Key: "key_1"}, 125}, {"no such key", Filter{Key: "key_9"}, 0}, {"model", Filter{Model: "large"}, 125},
		{"route", Filter{Route: "files"}, 83}, {"status", Filter{Status: 429}, 50}, {"class", Filter{Status: 4}, 100}, {"both", Filter{Status: 2, Key: "key_0"}, 50},
		{"from", Filter{From: start.Add(time.Hour)}, 170}, {"to", Filter{To: start.Add(time.Hour)}, 80}, {"nothing between", Filter{From: start.Add(time.Hour), To: start.Add(time.Hour)}, 0},
		{"the past", Filter{To: start}, 0},
	} {
		seen := map[string]bool{}
		cursor, last := "", time.Time{}
		for pages := 0; ; pages++ {
			p, err := w.Page(t.Context(), "a", test.filter, 7, cursor)
			if err != nil {
				t.Fatal(test.name, err)
			}
			for _, r := range p.Records {
				if seen[r.ID] || !last.IsZero() && r.Time.After(last) || !test.filter.fits(&r) {
					t.Fatalf("%s: %+v out of place", test.name, r)
				}
				seen[r.ID], last = true, r.Time
			}
			if pages == 2 {
				w.Add(&Record{ID: "new-" + test.name, Time: w.clock.now().Add(time.Hour), Account: "b"})
			}
			if cursor = p.Next; cursor == "" {
				break
			}
		}
		if len(seen) != test.want {
			t.Errorf("%s: %d records, want %d", test.name, len(seen), test.want)
		}
	}
	p, err := w.Page(t.Context(), "a", Filter{}, 5, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ account, cursor string }{
		"another account": {"b", p.Next}, "changed": {"a", "A" + p.Next[1:]}, "cut": {"a", p.Next[:20]}, "longer": {"a", p.Next + "AAAA"},
		"nonsense": {"a", "!"}, "long": {"a", strings.Repeat("A", 10_000)},
	} {
		if _, err := w.Page(t.Context(), c.account, Filter{}, 5, c.cursor); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Names can not reach into each other, whatever is in them.
	for _, name := range []string{"", "a\x00", "a/", strings.Repeat("a", 5000)} {
		if got := w.all(t, name); len(got) > 0 {
			t.Errorf("%.10q has %d records", name, len(got))
		}
	}
}

// A filter that fits nothing costs a bounded amount of work, and still comes to its end.
func TestPageIsBounded(t *testing.T) {
	t.Parallel()
	w := open(t, nil, func(c *Config) { c.Queue = 100_000 })
	for i := range maxLooks + 500 {
		w.Add(&Record{ID: fmt.Sprint(i), Time: w.clock.now(), Account: "a", Status: 200})
		w.clock.advance(time.Millisecond)
	}
	p, err := w.Page(t.Context(), "a", Filter{Status: 500}, 10, "")
	if err != nil || len(p.Records) != 0 || p.Next == "" {
		t.Fatal(p, err)
	}
	if p, err = w.Page(t.Context(), "a", Filter{Status: 500}, 10, p.Next); err != nil || p.Next != "" {
		t.Error(p, err)
	}
}

// What the ledger charged and nobody recorded is recorded from it: after a crash, after a drop, after a hold that was
// settled later.
func TestCompleted(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	w.call("a", 0, false)
	lost := w.call("a", 1, true)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.all(t, "a")); n != 1 {
		t.Errorf("%d records before its time", n)
	}
	if rep := w.proven(t); rep.Waiting != 1 {
		t.Errorf("%+v", rep)
	}
	w.clock.advance(16 * time.Minute)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := w.all(t, "a")
	if len(got) != 2 || !got[0].Completed || got[0].Receipt != lost.Receipt || got[0].Amount != lost.Amount || got[0].Status != 0 || got[0].Usage != lost.Usage || got[0].ID != lost.ID {
		t.Errorf("%+v", got)
	}
	w.proven(t)
	// The call's own record comes after all, and takes its place.
	w.Add(&lost)
	if got = w.all(t, "a"); len(got) != 2 || got[0] != lost {
		t.Errorf("%+v", got)
	}
	w.proven(t)
	sums, err := w.Sums(t.Context(), "a", Query{})
	if err != nil || len(sums) != 1 || sums[0].Calls != 2 || sums[0].Amount != exchange.Pico(3) {
		t.Errorf("%+v, %v", sums, err)
	}
	// A call whose hold could not be settled when it ended.
	later := Record{ID: "edge-1-7", Time: w.clock.now(), Account: "a", Key: "key_1", Route: "chat", Model: "small", Status: 200, Unsettled: true}
	w.Add(&later)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	seq := w.ledger.charge(w.clock.now(), "a", later.ID, 500)
	w.clock.advance(16 * time.Minute)
	if got = w.all(t, "a"); len(got) != 3 {
		t.Errorf("%+v", got)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got = w.all(t, "a"); len(got) != 3 || got[0].Amount != exchange.Pico(500) || got[0].Entry != seq || got[0].Unsettled || got[0].Route != "chat" {
		t.Errorf("%+v", got)
	}
	w.proven(t)
	// A crash: the process ends without Close, with records that were not written and one charge that is to come.
	for i := range 5 {
		w.call("b", 10+i, false)
	}
	crashed := w.Book
	w = open(t, w, nil)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.all(t, "b"); len(got) != 5 || !got[0].Completed {
		t.Errorf("%+v", got)
	}
	if rep := w.proven(t); rep.Charges != 8 {
		t.Errorf("%+v", rep)
	}
	crashed.mu.Lock()
	crashed.added, crashed.waiting = nil, 0
	crashed.mu.Unlock()
}

// A ledger that is older than the book is read from its beginning, in steps, as far back as records are kept.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	w := &world{store: memory.Open(memory.Config{}), ledger: new(journal), clock: newClock()}
	w.clock.advance(-100 * 24 * time.Hour)
	for i := range 100 {
		w.ledger.charge(w.clock.now(), "old", fmt.Sprint("o", i), 1)
	}
	w.clock.advance(99 * 24 * time.Hour)
	for i := range 2*scanEntries + 100 {
		w.ledger.charge(w.clock.now(), fmt.Sprint("a", i%7), fmt.Sprint("n", i), 1)
	}
	w.clock.advance(24 * time.Hour)
	w = open(t, w, nil)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := w.proven(t); rep.Records != 2*scanEntries+100 || rep.Accounts != 7 {
		t.Errorf("%+v", rep)
	}
}

// Verify finds what was changed behind the book's back.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(t *testing.T, w *world)
		want   string
	}{
		{"nothing", func(*testing.T, *world) {}, ""},
		{"a record is gone", func(t *testing.T, w *world) { w.remove(t, recordPrefix) }, "sums of hours"},
		{"a row is gone", func(t *testing.T, w *world) { w.remove(t, dayPrefix) }, "sums of days"},
		{"a charge without a record", func(_ *testing.T, w *world) { w.ledger.charge(w.clock.now(), "a", "x", 1); w.owner.next = 100 }, "charges"},
		{"another amount", func(_ *testing.T, w *world) { w.ledger.entries[1].Amount = exchange.Pico(77) }, "charges"},
		{"two amounts changed over", func(_ *testing.T, w *world) {
			e := w.ledger.entries
			e[0].Amount, e[1].Amount = e[1].Amount, e[0].Amount
		}, "charges"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := open(t, nil, nil)
			for i := range 6 {
				w.call("a", i, false)
			}
			w.proven(t)
			test.change(t, w)
			rep, err := w.Verify(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(rep.Problems, "\n"); test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("found %q", got)
			}
		})
	}
}

// remove removes the first key below a prefix.
func (w *world) remove(t *testing.T, prefix string) {
	t.Helper()
	for e := range w.store.Scan(t.Context(), []byte(prefix), nil) {
		var b state.Batch
		b.Delete(bytes.Clone(e.Key))
		if err := w.store.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		return
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	w := open(t, nil, func(c *Config) { c.Keep, c.Sums = 3*24*time.Hour, 10*24*time.Hour })
	for i := range 20 {
		w.call("a", i, false)
		w.clock.advance(12 * time.Hour)
	}
	w.call("still", 99, false)
	// Not swept yet, what is too old is not shown.
	if n := len(w.all(t, "a")); n != 5 {
		t.Errorf("%d records are shown", n)
	}
	w.proven(t)
	gone, err := w.Sweep(t.Context())
	if err != nil || gone.Records != 15 || gone.Hours != 14 || gone.Days != 0 {
		t.Errorf("%+v, %v", gone, err)
	}
	if rep := w.proven(t); rep.Records != 6 || rep.Days != 12 {
		t.Errorf("%+v", rep)
	}
	if gone, err = w.Sweep(t.Context()); err != nil || gone != (Removed{}) {
		t.Errorf("%+v, %v", gone, err)
	}
	w.clock.advance(4 * 24 * time.Hour)
	if gone, err = w.Sweep(t.Context()); err != nil || gone.Records != 6 || gone.Days < 3 {
		t.Errorf("%+v, %v", gone, err)
	}
	w.clock.advance(20 * 24 * time.Hour)
	if _, err = w.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	for e := range w.store.Scan(t.Context(), nil, nil) {
		if k := string(e.Key); k != secretKey && k != markKey && k != floorKey {
			t.Errorf("%q is left", k)
		}
	}
	w.proven(t)
	// The book by itself: nothing that is swept comes back from the ledger.
	if err := w.Book.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, w, nil)
	if rep := w.proven(t); rep.Records != 0 {
		t.Errorf("%+v", rep)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	for i := range 1200 {
		w.call([]string{"canary", "other"}[i%2], i, false)
	}
	w.call("canary", 2000, true) // not recorded yet, and never
	underWay := w.call("canary", 2001, true)
	gone, err := w.Remove(t.Context(), "canary")
	if err != nil || gone.Records != 600 || gone.Days != 1 || gone.Hours == 0 {
		t.Errorf("%+v, %v", gone, err)
	}
	w.Add(&underWay) // the call was charged before, and ended now
	w.clock.advance(time.Hour)
	for range 2 {
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for e := range w.store.Scan(t.Context(), nil, nil) {
			if bytes.Contains(e.Value, []byte("canary")) {
				t.Errorf("%q is left", e.Key)
			}
		}
		if n := len(w.all(t, "other")); n != 600 {
			t.Errorf("%d records of the other", n)
		}
		if rep := w.proven(t); rep.Accounts != 1 {
			t.Errorf("%+v", rep)
		}
		if err := w.Book.Close(); err != nil {
			t.Fatal(err)
		}
		w = open(t, w, nil) // and after a restart
	}
	w.call("canary", 3000, false)
	if n := len(w.all(t, "canary")); n != 1 {
		t.Errorf("%d records of calls made since", n)
	}
	w.proven(t)
}

func TestSums(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	start := w.clock.now().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	for i := range 300 {
		w.Add(&Record{
			ID: fmt.Sprint(i), Account: "a", Time: start.Add(time.Duration(i) * 10 * time.Minute), Key: fmt.Sprint("key_", i%3), Model: []string{"small", "large"}[i%2],
			Status: []int{200, 200, 200, 500}[i%4], Took: time.Duration(i+1) * time.Millisecond,
		})
	}
	for _, test := range []struct {
		name  string
		query Query
		want  int   // sums
		calls int64 // of all together
	}{
		{"all", Query{}, 1, 300}, {"hours", Query{By: ByTime}, 50, 300}, {"days", Query{Step: Day, By: ByTime}, 3, 300}, {"models", Query{By: ByModel}, 2, 300},
		{"keys", Query{Step: Day, By: ByKey}, 3, 300}, {"models and keys", Query{Step: Day, By: ByModel | ByKey}, 6, 300}, {"one key", Query{Key: "key_1"}, 1, 100},
		{"one model by hour", Query{Model: "large", By: ByTime}, 50, 150}, {"from", Query{From: start.Add(24 * time.Hour), By: ByTime}, 26, 156},
		{"to", Query{To: start.Add(24 * time.Hour), By: ByTime}, 24, 144}, {"within an hour", Query{From: start.Add(90 * time.Minute), To: start.Add(2 * time.Hour), By: ByTime}, 1, 6},
		{"nobody", Query{Key: "nobody"}, 0, 0}, {"before all", Query{To: start}, 0, 0},
	} {
		list, err := w.Sums(t.Context(), "a", test.query)
		if err != nil {
			t.Fatal(test.name, err)
		}
		var calls, durations int64
		for i, s := range list {
			calls += s.Calls
			durations += s.Durations.Count()
			if i > 0 && s.Time.Before(list[i-1].Time) {
				t.Errorf("%s: out of order", test.name)
			}
		}
		if len(list) != test.want || calls != test.calls || durations != calls {
			t.Errorf("%s: %d sums of %d calls, want %d of %d", test.name, len(list), calls, test.want, test.calls)
		}
	}
	all, _ := w.Sums(t.Context(), "a", Query{})
	if s := all[0]; s.Errors != 75 {
		t.Errorf("%d errors", s.Errors)
	}
	for q, want := range map[float64]time.Duration{0.5: 150 * time.Millisecond, 0.95: 285 * time.Millisecond, 0.99: 297 * time.Millisecond} {
		if got := all[0].Durations.Quantile(q); got < want*7/8 || got > want*9/8 {
			t.Errorf("quantile %v: %s, want about %s", q, got, want)
		}
	}
	if none, err := w.Sums(t.Context(), "b", Query{}); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

// A duration and its bucket's middle are at most an eighth apart, at every size, and buckets are in order.
func TestHistogram(t *testing.T) {
	t.Parallel()
	last := uint16(0)
	for d := time.Microsecond; d < 100*time.Hour; d += d/50 + time.Microsecond {
		n := bucketOf(d)
		if n < last {
			t.Fatalf("%s is in bucket %d, below %d", d, n, last)
		}
		last = n
		if m := middle(n); m > d+d/8 || m < d-d/8-time.Microsecond {
			t.Fatalf("%s is taken for %s", d, m)
		}
	}
	var h Histogram
	if h.Quantile(0.5) != 0 || bucketOf(-time.Second) != 0 {
		t.Error("of nothing")
	}
}

// faulty is a store that fails where it is told to; with a lie, it stores what it says it did not.
type faulty struct {
	state.Store
	fails, lies atomic.Bool
}

var errDisk = errors.New("disk is gone")

func (f *faulty) Commit(ctx context.Context, b *state.Batch) error {
	if !f.fails.Load() {
		return f.Store.Commit(ctx, b)
	}
	if f.lies.Load() {
		_ = f.Store.Commit(ctx, b)
	}
	return errDisk
}

// A store that fails, or says it did, loses no record and counts none twice.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, lies := range []bool{false, true} {
		f := &faulty{Store: memory.Open(memory.Config{})}
		w := open(t, &world{store: f, ledger: new(journal), clock: newClock()}, nil)
		for i := range 10 {
			w.call("a", i, false)
		}
		f.lies.Store(lies)
		for round := range 5 {
			f.fails.Store(round%2 == 0)
			for i := range 10 {
				w.call("a", 100+10*round+i, i == 9)
			}
			if err := w.Flush(t.Context()); (err != nil) != (round%2 == 0) {
				t.Error(round, err)
			}
		}
		f.fails.Store(false)
		w.clock.advance(time.Hour)
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(w.all(t, "a")); n != 60 {
			t.Errorf("%d records, want 60 (lies: %t)", n, lies)
		}
		w.proven(t)
	}
}

// When the queue is full, what is charged comes from the ledger and what is not is counted as dropped.
func TestFull(t *testing.T) {
	t.Parallel()
	f := &faulty{Store: memory.Open(memory.Config{})}
	w := open(t, &world{store: f, ledger: new(journal), clock: newClock()}, func(c *Config) { c.Queue = 5 })
	f.fails.Store(true)
	for i := range 20 {
		w.call("a", i, false)
	}
	if n := w.Dropped(); n == 0 {
		t.Error("nothing was dropped")
	}
	f.fails.Store(false)
	w.clock.advance(time.Hour)
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.all(t, "a")); n != 20 {
		t.Errorf("%d records, want all 20", n)
	}
	w.proven(t)
}

func TestText(t *testing.T) {
	t.Parallel()
	w := open(t, nil, nil)
	w.call("a", 0, false)
	w.Add(&Record{ID: "e2", Time: w.clock.now(), Account: "a", Key: `=HYPERLINK("http://x")`, Route: "+1", Model: "a \"b\",c\r\nd", Status: 429, Cut: true})
	w.Add(&Record{ID: "@e3", Time: w.clock.now().Add(time.Second), Account: "a", Key: "-2", Model: "\t=1"})
	var b bytes.Buffer
	if err := WriteCSV(&b, Views(w.Export(t.Context(), "a", Filter{}))); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatal(rows, err)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				t.Errorf("a spreadsheet reads %q as a formula", cell)
			}
		}
	}
	if rows[2][5] != "a \"b\",c\nd" || rows[2][3] != `'=HYPERLINK("http://x")` || rows[3][10] != "0.000000000001" {
		t.Errorf("%q", rows)
	}
	b.Reset()
	if err := WriteJSONL(&b, Views(w.Export(t.Context(), "a", Filter{}))); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	var v View
	if len(lines) != 3 || json.Unmarshal([]byte(lines[2]), &v) != nil || v.Units["output"] != 20 || v.Amount != exchange.Pico(1) || v.Took != 1500 {
		t.Errorf("%s", b.String())
	}
	fault := func(yield func(View, error) bool) { yield(View{}, errDisk) }
	if err := WriteCSV(&b, fault); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if err := WriteJSONL(&b, fault); !errors.Is(err, errDisk) {
		t.Error(err)
	}
}

// Many callers at once, readers between them, sweeps and removals: it adds up at every moment.
func TestHammer(t *testing.T) {
	t.Parallel()
	w := open(t, nil, func(c *Config) { c.Every, c.Now = time.Millisecond, time.Now })
	var all sync.WaitGroup
	for c := range 8 {
		all.Go(func() {
			account := fmt.Sprint("acct_", c%4)
			for i := range 300 {
				r := Record{ID: fmt.Sprint(c, "-", i), Time: time.Now(), Account: account, Key: fmt.Sprint(i % 3), Model: "small", Status: 200, Took: time.Duration(rand.IntN(1e9))}
				if i%3 > 0 {
					r.Amount = exchange.Pico(int64(i))
					r.Entry = w.ledger.charge(time.Now(), account, r.ID, int64(i))
				}
				w.Add(&r)
				switch i % 100 {
				case 20:
					if _, err := w.Page(t.Context(), account, Filter{}, 50, ""); err != nil {
						t.Error(err)
					}
				case 40:
					w.proven(t)
				case 60:
					if _, err := w.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				case 80:
					if c == 3 {
						if _, err := w.Remove(t.Context(), account); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	all.Wait()
	if rep := w.proven(t); rep.Records < 3*600 || rep.Waiting != 0 {
		t.Errorf("%+v", rep)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{"no store": {}, "a negative time": {Store: memory.Open(memory.Config{}), Keep: -1}} {
		if b, err := Open(t.Context(), c); err == nil {
			_ = b.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

// FuzzRecord: no octets in the store can do more than be refused, and what is written is read again.
func FuzzRecord(f *testing.F) {
	r := Record{ID: "e", Time: time.UnixMicro(1), Account: "a", Key: "k", Amount: exchange.Pico(5), Status: 200, Took: time.Second}
	r.Usage.Units[exchange.Output] = 3
	f.Add(r.place(), r.encode())
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, 8), []byte{1, 0, 200, 200})
	f.Fuzz(func(t *testing.T, place, value []byte) {
		if len(place) > 100 {
			return
		}
		r, ok := decodeRecord(place, value)
		if ok {
			again, ok := decodeRecord(r.place(), r.encode())
			if !ok || again.Account != r.Account || again.Usage != r.Usage || again.Amount != r.Amount || again.Took != r.Took {
				t.Errorf("%+v\n%+v", r, again)
			}
		}
		var s Sum
		if s.decode(value) {
			var again Sum
			if !again.decode(s.encode()) || again.Calls != s.Calls || len(again.Durations.buckets) != len(s.Durations.buckets) {
				t.Errorf("%+v\n%+v", s, again)
			}
		}
		_, _ = Hour.rowAt(value)
	})
}

// What a call pays for its record.
func BenchmarkAdd(b *testing.B) {
	w := &world{store: memory.Open(memory.Config{}), ledger: new(journal), clock: newClock()}
	book, err := Open(b.Context(), Config{Store: w.store, Now: w.clock.now, Queue: 1 << 30, Every: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	r := Record{ID: "edge-1-1", Time: w.clock.now(), Account: "acct_aaaaaaaaaaaaaaaa", Key: "key_a", Route: "chat", Model: "small", Status: 200}
	book.added = make([]Record, 0, 1<<10)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%(1<<10) == 0 { // as the owner does
			book.mu.Lock()
			book.added, book.waiting = book.added[:0], 0
			book.mu.Unlock()
		}
		book.Add(&r)
	}
	book.added, book.waiting = nil, 0
	_ = book.Close()
}
