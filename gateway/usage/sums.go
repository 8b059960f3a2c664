package usage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Sum is what the calls of a stretch of time come to.
type Sum struct {
	Time       time.Time // when it begins; zero where sums are not told apart by it
	Model      string    // empty where they are not, and for calls that are none of a model
	Key        string
	Calls      int64
	Errors     int64 // calls whose status was 400 or above, or whose reply was broken off
	Prompt     int64 // tokens in
	Completion int64 // tokens out
	Amount     exchange.Amount
	Durations  Histogram // of calls whose duration is known
}

// add counts a record once, or takes it out again.
func (s *Sum) add(r *Record, times int64) {
	s.Calls += times
	if r.failed() {
		s.Errors += times
	}
	s.Prompt = within(s.Prompt, r.Usage.Prompt(), times)
	s.Completion = within(s.Completion, r.Usage.Completion(), times)
	if times > 0 {
		s.Amount = s.Amount.Add(r.Amount)
	} else {
		s.Amount = s.Amount.Sub(r.Amount)
	}
	if r.Took > 0 {
		s.Durations.add(bucketOf(r.Took), times)
	}
}

// maxTokens is the most tokens of one call that are counted, so that no sum of calls overflows.
const maxTokens = 1 << 40

func within(sum, n, times int64) int64 { return sum + min(n, maxTokens)*times }

// merge adds another sum.
func (s *Sum) merge(o *Sum) {
	s.Calls += o.Calls
	s.Errors += o.Errors
	s.Prompt += o.Prompt
	s.Completion += o.Completion
	s.Amount = s.Amount.Add(o.Amount)
	s.Durations.Merge(&o.Durations)
}

// Histogram counts durations in buckets of an eighth of their power of two, so that what it says is at most an eighth off.
// The zero value is empty.
type Histogram struct {
	buckets []bucket // ascending
}

type bucket struct {
	number uint16
	count  int64
}

// bucketOf is the number of a duration's bucket, by its microseconds.
func bucketOf(d time.Duration) uint16 {
	n := uint64(max(d.Microseconds(), 0))
	if n < 8 {
		return uint16(n)
	}
	e := bits.Len64(n) - 1 // at least 3
	return uint16(e-2)<<3 | uint16(n>>(e-3)&7)
}

// middle is the duration in the middle of a bucket.
func middle(number uint16) time.Duration {
	if number < 8 {
		return time.Duration(number) * time.Microsecond
	}
	e := int(number>>3) + 2
	low := uint64(8|number&7) << (e - 3)
	return time.Duration(low+uint64(1)<<(e-3)/2) * time.Microsecond
}

func (h *Histogram) add(number uint16, times int64) {
	i, there := slices.BinarySearchFunc(h.buckets, number, func(b bucket, n uint16) int { return cmp.Compare(b.number, n) })
	if !there {
		h.buckets = slices.Insert(h.buckets, i, bucket{number: number})
	}
	if h.buckets[i].count += times; h.buckets[i].count <= 0 {
		h.buckets = slices.Delete(h.buckets, i, i+1)
	}
}

// Merge adds what another one counted.
func (h *Histogram) Merge(o *Histogram) {
	for _, b := range o.buckets {
		h.add(b.number, b.count)
	}
}

// Count is how many durations were counted.
func (h *Histogram) Count() (n int64) {
	for _, b := range h.buckets {
		n += b.count
	}
	return n
}

// Quantile is the duration that a share q, 0 to 1, of those counted do not exceed, such as 0.95; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(h.Count())))
	for _, b := range h.buckets {
		if rank -= b.count; rank <= 0 {
			return middle(b.number)
		}
	}
	return 0
}

// Step is how long the stretches of time are that are summed up.
type Step uint8

// The steps; both in UTC.
const (
	Hour Step = iota
	Day
)

func (s Step) prefix() string {
	if s == Day {
		return dayPrefix
	}
	return hourPrefix
}

func (s Step) length() time.Duration {
	if s == Day {
		return 24 * time.Hour
	}
	return time.Hour
}

// number counts steps since 1970.
func (s Step) number(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0)/int64(s.length()/time.Second), math.MaxUint32))
}

func (s Step) time(n uint32) time.Time {
	return time.Unix(int64(n)*int64(s.length()/time.Second), 0).UTC()
}

// rowKey is where a row of sums is: one for each account, step, model and key.
func (s Step) rowKey(of digest, t time.Time, model, key string) []byte {
	b := binary.BigEndian.AppendUint32(of.key(s.prefix()), ^s.number(t))
	model = clip(model)
	b = append(binary.AppendUvarint(b, uint64(len(model))), model...)
	return append(b, clip(key)...)
}

// rowAt reads what follows the account's digest in a row's key.
func (s Step) rowAt(rest []byte) (sum Sum, ok bool) {
	if len(rest) < 4 {
		return Sum{}, false
	}
	d := decoder{rest: rest[4:]}
	sum.Time = s.time(^binary.BigEndian.Uint32(rest))
	sum.Model = d.text()
	sum.Key = string(d.rest)
	return sum, !d.bad
}

// encode returns a row's value.
func (s *Sum) encode() []byte {
	b := make([]byte, 0, 64+3*len(s.Durations.buckets))
	b = append(b, version)
	for _, n := range [...]int64{s.Calls, s.Errors, s.Prompt, s.Completion} {
		b = binary.AppendUvarint(b, uint64(max(n, 0)))
	}
	b = s.Amount.Append(b)
	last := uint16(0)
	for _, k := range s.Durations.buckets {
		b = binary.AppendUvarint(b, uint64(k.number-last))
		b = binary.AppendUvarint(b, uint64(k.count))
		last = k.number
	}
	return b
}

// decode reads a row's value into s, whose names and time stay.
func (s *Sum) decode(value []byte) bool {
	d := decoder{rest: value}
	if d.octet() != version {
		return false
	}
	for _, n := range [...]*int64{&s.Calls, &s.Errors, &s.Prompt, &s.Completion} {
		*n = d.count()
	}
	s.Amount = d.amount()
	last := uint64(0)
	for first := true; len(d.rest) > 0; first = false {
		step := d.number()
		if last += step; step == 0 && !first || last > math.MaxUint16 {
			return false
		}
		s.Durations.buckets = append(s.Durations.buckets, bucket{number: uint16(last), count: d.count()})
	}
	return !d.bad
}

// By says by what sums are told apart.
type By uint8

// What sums can be told apart by.
const (
	ByTime By = 1 << iota
	ByModel
	ByKey
)

// Query asks for sums.
type Query struct {
	Step  Step
	From  time.Time // the first stretch is the one it is in; zero: the oldest there is
	To    time.Time // only stretches that begin before it; zero: now
	Model string    // of this model alone; empty: of all
	Key   string    // of this key alone; empty: of all
	By    By        // 0: one sum of all
}

// Bounds of one query.
const (
	maxRows   = 200_000 // read
	maxGroups = 20_000  // given
)

// Sums returns what an account's calls come to, the oldest first, then by model and key. An account without calls has none.
// More than can be given at once is ErrTooMany: ask for days, for less time, or for fewer differences.
func (b *Book) Sums(ctx context.Context, account string, q Query) ([]Sum, error) {
	if err := b.fresh(ctx); err != nil {
		return nil, err
	}
	prefix := digestOf(account).key(q.Step.prefix())
	from := prefix
	if !q.To.IsZero() {
		last := q.To.Add(-1)
		if last.Unix() < 0 {
			return nil, nil
		}
		from = binary.BigEndian.AppendUint32(bytes.Clone(prefix), ^q.Step.number(last))
	}
	groups := map[group]*Sum{}
	rows := 0
	for e, err := range b.store.Scan(ctx, prefix, from) {
		if err != nil {
			return nil, fmt.Errorf("read sums of usage: %w", err)
		}
		row, ok := q.Step.rowAt(e.Key[len(prefix):])
		if !ok || !row.decode(e.Value) {
			return nil, fmt.Errorf("%w: sums of account %s", ErrCorrupt, clip(account))
		}
		if !q.From.IsZero() && row.Time.Before(q.Step.time(q.Step.number(q.From))) {
			break
		}
		if rows++; rows > maxRows {
			return nil, ErrTooMany
		}
		if q.Model != "" && row.Model != q.Model || q.Key != "" && row.Key != q.Key {
			continue
		}
		at := q.By.of(&row)
		g := groups[at]
		if g == nil {
			if len(groups) == maxGroups {
				return nil, ErrTooMany
			}
			g = &Sum{Time: at.time, Model: at.model, Key: at.key}
			groups[at] = g
		}
		g.merge(&row)
	}
	list := make([]Sum, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Sum) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Key, b.Key))
	})
	return list, nil
}

// group is by what sums are told apart.
type group struct {
	time       time.Time
	model, key string
}

func (by By) of(row *Sum) (g group) {
	if by&ByTime != 0 {
		g.time = row.Time
	}
	if by&ByModel != 0 {
		g.model = row.Model
	}
	if by&ByKey != 0 {
		g.key = row.Key
	}
	return g
}
