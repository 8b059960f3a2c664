// Package record is what a ledger stores: the records, their keys, and the proof that they add up. Its main type is Entry.
// It knows octets only; what is done with them is the ledger's.
package record

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Bounds of what a ledger is given.
const (
	MaxName = 128  // octets of an account's id, a key, or a model's or upstream's name
	MaxNote = 1024 // octets of a note
	MaxTags = 16   // tags of one call
	MaxTag  = 256  // octets of a tag's name and of its value
)

// The accounts on the other side of every movement. Customers' accounts can not begin with "system:".
const (
	Payments    = "system:payments"    // credits come from here: what was paid in, negated
	Revenue     = "system:revenue"     // charges go here, refunds come from here
	Adjustments = "system:adjustments" // corrections by operators
)

const systemPrefix = "system:"

// MaxAttempts is how many attempts an intent names; the first ones and the last are kept.
const MaxAttempts = 16

// IsSystem reports whether an account is the system's own.
func IsSystem(id string) bool {
	return len(id) >= len(systemPrefix) && id[:len(systemPrefix)] == systemPrefix
}

// Attempt is one call to an upstream that is about to be made under a hold.
type Attempt struct {
	Exchange   string // the exchange's id; may be empty
	Upstream   string
	Model      string // the upstream's name for the model
	Number     int    // from 1
	Durability string // "sync" (or empty): recorded on disk before Begin returns. "batch": within 50 ms
}

// The keys of the records, in the order in which Verify meets them. DESIGN.md says what each one holds.
const (
	AccountPrefix = "ledger/a/" // + account
	OpeningPrefix = "ledger/b/" // + account
	FloorKey      = "ledger/f"
	HeadKey       = "ledger/h"
	IntentPrefix  = "ledger/i/" // + hold
	oncePrefix    = "ledger/k/" // + idempotency key
	PricePrefix   = "ledger/p/" // + digest
	SpendPrefix   = "ledger/s/" // + API key's id
	EntryPrefix   = "ledger/t/" // + sequence number, 8 octets, big endian
	settledPrefix = "ledger/u/" // + hold
	indexPrefix   = "ledger/x/" // + account, a zero octet, sequence number
	AllPrefix     = "ledger/"
)

// The first octet of a value.
const (
	version    = 1
	versionKey = 2 // of an entry or an intent that ends with an API key
)

// AccountKey returns the key of an account's record.
func AccountKey(id string) []byte { return []byte(AccountPrefix + id) }

// OpeningKey returns the key of an account's opening balance.
func OpeningKey(id string) []byte { return []byte(OpeningPrefix + id) }

// IntentKey returns the key of a hold's intent.
func IntentKey(id string) []byte { return []byte(IntentPrefix + id) }

// OnceKey returns the key of what was done under an idempotency key.
func OnceKey(key string) []byte { return []byte(oncePrefix + key) }

// SpendKey returns the key of what an API key spent.
func SpendKey(key string) []byte { return []byte(SpendPrefix + key) }

// SettledKey returns the key of a hold's settled marker.
func SettledKey(id string) []byte { return []byte(settledPrefix + id) }

// PriceKey returns the key of a price row.
func PriceKey(d Digest) []byte { return append([]byte(PricePrefix), d[:]...) }

// EntryKey returns the key of an entry.
func EntryKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(EntryPrefix), seq) }

// IndexKey returns the key of an account's index record of an entry. All of an account's begin alike but for 8 octets.
func IndexKey(id string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(indexPrefix+id), 0), seq)
}

// SequenceOf reads the sequence number at the end of a key.
func SequenceOf(b []byte) (uint64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// ChainSize is the length of the hash at the end of an entry.
const ChainSize = sha256.Size

// Link returns the hash that chains an entry to the one before it.
func Link(before [ChainSize]byte, seq uint64, body []byte) [ChainSize]byte {
	h := sha256.New()
	h.Write(before[:])
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], seq)
	h.Write(number[:])
	h.Write(body)
	var sum [ChainSize]byte
	h.Sum(sum[:0])
	return sum
}

// Kind is why money moved.
type Kind uint8

// The kinds of entries.
const (
	Credit     Kind = iota + 1 // paid in
	Charge                     // a settled hold
	Refund                     // a charge given back, whole or in part
	Adjustment                 // an operator's correction
)

// String returns the word used in logs and by the command line.
func (k Kind) String() string {
	switch k {
	case Credit:
		return "credit"
	case Charge:
		return "charge"
	case Refund:
		return "refund"
	case Adjustment:
		return "adjustment"
	}
	return "unknown"
}

// Flags say how a charge came about.
type Flags uint8

// The flags of a charge.
const (
	Estimated Flags = 1 << iota // the provider did not report the usage
	Capped                      // it would have cost more than was held
	Recovered                   // settled by its checkpoint when the ledger was opened after a crash
	Expired                     // settled by its checkpoint when its time was over
)

// Entry is one movement of money from one account to another. Entries are appended and never changed.
type Entry struct {
	Seq     uint64 // from 1, without gaps
	Time    time.Time
	Kind    Kind
	Flags   Flags
	From    string
	To      string
	Amount  exchange.Amount // never negative
	Balance exchange.Amount // what the customer could spend afterwards
	Ref     string          // a charge: the hold; others: the key they were made under
	Of      string          // a refund: the hold whose charge it gives back
	Note    string

	// Of a charge alone.
	Model         string // the public model
	Upstream      string // of the last attempt
	UpstreamModel string
	Exchange      string
	Attempts      int
	Usage         exchange.Usage
	Price         string          // names the price row; empty: the call was free
	Held          exchange.Amount // what was reserved
	Tags          map[string]string
	Key           string // the API key's id; empty: by none, or recorded before keys were

	Row Digest // the row itself
}

// Receipt makes the receipt of a charge.
func (e *Entry) Receipt() *exchange.Receipt {
	return &exchange.Receipt{
		ID: e.Ref, Entry: e.Seq, Account: e.From, Model: e.Model, Usage: e.Usage, Price: e.Price, Amount: e.Amount, Balance: e.Balance,
	}
}

// encoder appends to a record. Strings stand behind their length, numbers are uvarints.
type encoder []byte

func newRecord(size int) encoder { return append(make(encoder, 0, size), version) }

func (b *encoder) number(n uint64)          { *b = binary.AppendUvarint(*b, n) }
func (b *encoder) octet(c byte)             { *b = append(*b, c) }
func (b *encoder) amount(a exchange.Amount) { *b = a.Append(*b) }
func (b *encoder) octets(o []byte)          { *b = append(*b, o...) }

func (b *encoder) text(s string) {
	b.number(uint64(len(s)))
	*b = append(*b, s...)
}

// key ends a record with an API key. Records without one are as they were before keys were recorded, see version.
func (b *encoder) key(s string) {
	if s != "" {
		(*b)[0] = versionKey
		b.text(s)
	}
}

func (b *encoder) flag(f bool) {
	c := byte(0)
	if f {
		c = 1
	}
	b.octet(c)
}

// moment writes a time in microseconds, the zero time as 0.
func (b *encoder) moment(t time.Time) {
	if t.IsZero() {
		b.number(0)
		return
	}
	b.number(uint64(max(t.UnixMicro(), 0)) + 1)
}

func (b *encoder) usage(u *exchange.Usage) {
	b.flag(u.Estimated)
	n := 0
	for _, count := range u.Units {
		if count != 0 {
			n++
		}
	}
	b.number(uint64(n))
	for unit, count := range u.Units {
		if count != 0 {
			b.octet(byte(unit))
			b.number(uint64(count))
		}
	}
}

func (b *encoder) tags(tags map[string]string) {
	b.number(uint64(len(tags)))
	if len(tags) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		b.text(name)
		b.text(tags[name])
	}
}

// decoder reads a record. After the first fault everything it returns is zero and ok is false.
type decoder struct {
	b     []byte
	bad   bool
	keyed bool // its version is versionKey
}

func readRecord(b []byte) *decoder {
	d := readKeyed(b)
	d.bad = d.bad || d.keyed
	return d
}

// readKeyed reads a record that may end with an API key.
func readKeyed(b []byte) *decoder {
	d := &decoder{b: b}
	v := d.octet()
	d.keyed = v == versionKey
	d.bad = d.bad || v != version && !d.keyed
	return d
}

// whole reports whether the record was read without a fault and to its end.
func (d *decoder) whole() bool { return !d.bad && len(d.b) == 0 }

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) octet() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if d.bad || size <= 0 || (size > 1 && d.b[size-1] == 0) { // the last: longer than need be
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

// count reads a number of things of which there are at most most.
func (d *decoder) count(most int) int {
	n := d.number()
	if n > uint64(most) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) text(most int) string { return string(d.take(d.count(most))) }

// key reads what encoder.key wrote.
func (d *decoder) key() string {
	if !d.keyed {
		return ""
	}
	s := d.text(MaxName)
	d.bad = d.bad || s == ""
	return s
}

func (d *decoder) flag() bool {
	c := d.octet()
	if c > 1 {
		d.bad = true
	}
	return c == 1
}

func (d *decoder) amount() exchange.Amount {
	a, ok := exchange.DecodeAmount(d.take(exchange.AmountSize))
	if !ok {
		d.bad = true
	}
	return a
}

func (d *decoder) moment() time.Time {
	n := d.number()
	if n > 1<<60 {
		d.bad = true
	}
	if n == 0 || d.bad {
		return time.Time{}
	}
	return time.UnixMicro(int64(n - 1))
}

func (d *decoder) digest() (v Digest) {
	copy(v[:], d.take(len(v)))
	return v
}

func (d *decoder) usage() (u exchange.Usage) {
	u.Estimated = d.flag()
	last := -1
	for range d.count(int(exchange.UnitCount)) {
		unit := int(d.octet())
		n := d.number()
		if unit >= int(exchange.UnitCount) || unit <= last || n > math.MaxInt64 || n == 0 {
			d.bad = true
			return exchange.Usage{}
		}
		last = unit
		u.Units[unit] = int64(n)
	}
	return u
}

func (d *decoder) tags() map[string]string {
	n := d.count(MaxTags)
	if n == 0 {
		return nil
	}
	tags := make(map[string]string, n)
	last := ""
	for range n {
		name := d.text(MaxTag)
		if name <= last {
			d.bad = true
		}
		last = name
		tags[name] = d.text(MaxTag)
	}
	return tags
}

// EncodeEntry returns the record of an entry without the hash that follows it; Seq is in its key.
func EncodeEntry(e *Entry) []byte {
	b := newRecord(320)
	b.octet(byte(e.Kind))
	b.octet(byte(e.Flags))
	b.moment(e.Time)
	b.text(e.From)
	b.text(e.To)
	b.amount(e.Amount)
	b.amount(e.Balance)
	b.text(e.Ref)
	b.text(e.Of)
	b.text(e.Note)
	if e.Kind == Charge {
		b.text(e.Model)
		b.text(e.Upstream)
		b.text(e.UpstreamModel)
		b.text(e.Exchange)
		b.number(uint64(e.Attempts))
		b.usage(&e.Usage)
		b.text(e.Price)
		b.octets(e.Row[:])
		b.amount(e.Held)
		b.tags(e.Tags)
		b.key(e.Key)
	}
	return b
}

// DecodeEntry reads an entry and the hash that follows it.
func DecodeEntry(seq uint64, record []byte) (e Entry, chain [ChainSize]byte, ok bool) {
	if len(record) < ChainSize {
		return e, chain, false
	}
	body, hash := record[:len(record)-ChainSize], record[len(record)-ChainSize:]
	copy(chain[:], hash)
	d := readKeyed(body)
	e.Seq = seq
	e.Kind = Kind(d.octet())
	e.Flags = Flags(d.octet())
	e.Time = d.moment()
	e.From = d.text(MaxName)
	e.To = d.text(MaxName)
	e.Amount = d.amount()
	e.Balance = d.amount()
	e.Ref = d.text(MaxName)
	e.Of = d.text(MaxName)
	e.Note = d.text(MaxNote)
	if e.Kind == Charge {
		e.Model = d.text(MaxName)
		e.Upstream = d.text(MaxName)
		e.UpstreamModel = d.text(MaxName)
		e.Exchange = d.text(MaxName)
		e.Attempts = d.count(math.MaxInt32)
		e.Usage = d.usage()
		e.Price = d.text(MaxName)
		e.Row = d.digest()
		e.Held = d.amount()
		e.Tags = d.tags()
		e.Key = d.key()
	}
	if d.keyed && e.Kind != Charge || e.Kind < Credit || e.Kind > Adjustment || e.Amount.Sign() < 0 {
		d.bad = true
	}
	return e, chain, d.whole()
}

// Intent is what the store knows of an open hold.
type Intent struct {
	Account    string
	Exchange   string
	Model      string
	Held       exchange.Amount
	Placed     time.Time
	Price      Digest // zero: free
	Attempts   []Attempt
	Checkpoint exchange.Usage
	Tags       map[string]string
	Key        string // the API key's id; empty: by none
}

// Encode returns the record.
func (i *Intent) Encode() []byte {
	b := newRecord(192)
	b.text(i.Account)
	b.text(i.Exchange)
	b.text(i.Model)
	b.amount(i.Held)
	b.moment(i.Placed)
	b.octets(i.Price[:])
	b.number(uint64(len(i.Attempts)))
	for _, a := range i.Attempts {
		b.text(a.Exchange)
		b.text(a.Upstream)
		b.text(a.Model)
		b.number(uint64(a.Number))
	}
	b.usage(&i.Checkpoint)
	b.tags(i.Tags)
	b.key(i.Key)
	return b
}

// DecodeIntent reads a record; ok is false when it is damaged.
func DecodeIntent(record []byte) (i Intent, ok bool) {
	d := readKeyed(record)
	i.Account = d.text(MaxName)
	i.Exchange = d.text(MaxName)
	i.Model = d.text(MaxName)
	i.Held = d.amount()
	i.Placed = d.moment()
	i.Price = d.digest()
	for range d.count(MaxAttempts) {
		i.Attempts = append(i.Attempts, Attempt{
			Exchange: d.text(MaxName), Upstream: d.text(MaxName), Model: d.text(MaxName), Number: d.count(math.MaxInt32),
		})
	}
	i.Checkpoint = d.usage()
	i.Tags = d.tags()
	i.Key = d.key()
	if i.Held.Sign() < 0 || i.Account == "" {
		d.bad = true
	}
	return i, d.whole()
}

// Account is an account as it is stored.
type Account struct {
	Closed bool
	Opened time.Time
	Total  exchange.Amount
}

// Encode returns the record.
func (a Account) Encode() []byte {
	b := newRecord(32)
	b.flag(a.Closed)
	b.moment(a.Opened)
	b.amount(a.Total)
	return b
}

// DecodeAccount reads a record; ok is false when it is damaged.
func DecodeAccount(record []byte) (a Account, ok bool) {
	d := readRecord(record)
	a = Account{Closed: d.flag(), Opened: d.moment(), Total: d.amount()}
	return a, d.whole()
}

// Spend is what the calls of an API key were charged: in the current day, week and month, and in all. A charge belongs to
// the period in which it was written, and a refund changes nothing here.
type Spend struct {
	Since [exchange.Periods]time.Time // when each period began, by exchange.Period; of those that end
	Sums  [exchange.Periods]exchange.Amount
}

// In returns what was charged in the period of a kind that holds t. Where the clock went back, it is what was charged in
// the last period that was begun.
func (s *Spend) In(p exchange.Period, t time.Time) exchange.Amount {
	if p.Start(t).After(s.Since[p]) {
		return exchange.Amount{}
	}
	return s.Sums[p]
}

// Add counts a charge of the time t.
func (s *Spend) Add(amount exchange.Amount, t time.Time) {
	for p := range exchange.Periods {
		if start := p.Start(t); start.After(s.Since[p]) {
			s.Since[p], s.Sums[p] = start, exchange.Amount{}
		}
		s.Sums[p] = s.Sums[p].Add(amount)
	}
}

// Encode returns the record.
func (s *Spend) Encode() []byte {
	b := newRecord(96)
	for p := range exchange.Periods {
		b.moment(s.Since[p])
		b.amount(s.Sums[p])
	}
	return b
}

// DecodeSpend reads a record; ok is false when it is damaged.
func DecodeSpend(record []byte) (s Spend, ok bool) {
	d := readRecord(record)
	for p := range exchange.Periods {
		s.Since[p], s.Sums[p] = d.moment(), d.amount()
		if s.Sums[p].Sign() < 0 {
			d.bad = true
		}
	}
	return s, d.whole()
}

// Head says where the entries end. It is written with every group.
type Head struct {
	Currency string
	Boot     uint64 // counts openings; a part of every id
	Group    uint64 // counts groups, tried ones included
	Seq      uint64 // of the last entry
	Chain    [ChainSize]byte
}

// Encode returns the record.
func (h Head) Encode() []byte {
	b := newRecord(64)
	b.text(h.Currency)
	b.number(h.Boot)
	b.number(h.Group)
	b.number(h.Seq)
	b.octets(h.Chain[:])
	return b
}

// DecodeHead reads a record; ok is false when it is damaged.
func DecodeHead(record []byte) (h Head, ok bool) {
	d := readRecord(record)
	h = Head{Currency: d.text(3), Boot: d.number(), Group: d.number(), Seq: d.number()}
	copy(h.Chain[:], d.take(ChainSize))
	return h, d.whole()
}

// Marker says that a hold was settled, and by which entry.
type Marker struct {
	Seq      uint64
	Amount   exchange.Amount
	Refunded exchange.Amount
}

// Encode returns the record.
func (m Marker) Encode() []byte {
	b := newRecord(48)
	b.number(m.Seq)
	b.amount(m.Amount)
	b.amount(m.Refunded)
	return b
}

// DecodeMarker reads a record; ok is false when it is damaged.
func DecodeMarker(record []byte) (m Marker, ok bool) {
	d := readRecord(record)
	m = Marker{Seq: d.number(), Amount: d.amount(), Refunded: d.amount()}
	return m, d.whole()
}

// Keyed says what was done under an idempotency key. It outlives its entry.
type Keyed struct {
	Kind    Kind
	Account string
	Amount  exchange.Amount // as it was asked for: an adjustment's can be negative
	Hold    string          // a refund's
	Seq     uint64
	Time    time.Time

	Key string // not stored: it is in the record's key
}

// Encode returns the record.
func (k Keyed) Encode() []byte {
	b := newRecord(96)
	b.octet(byte(k.Kind))
	b.text(k.Account)
	b.amount(k.Amount)
	b.text(k.Hold)
	b.number(k.Seq)
	b.moment(k.Time)
	return b
}

// DecodeKeyed reads a record; ok is false when it is damaged.
func DecodeKeyed(record []byte) (k Keyed, ok bool) {
	d := readRecord(record)
	k = Keyed{
		Kind: Kind(d.octet()), Account: d.text(MaxName), Amount: d.amount(), Hold: d.text(MaxName), Seq: d.number(), Time: d.moment(),
	}
	return k, d.whole()
}

// Entry returns the entry that was made, as far as the record knows it.
func (k Keyed) Entry() Entry {
	other := map[Kind]string{Credit: Payments, Adjustment: Adjustments, Refund: Revenue}[k.Kind]
	e := Entry{Seq: k.Seq, Time: k.Time, Kind: k.Kind, From: other, To: k.Account, Amount: k.Amount, Ref: k.Key, Of: k.Hold}
	if k.Amount.Sign() < 0 {
		e.From, e.To, e.Amount = k.Account, other, k.Amount.Neg()
	}
	return e
}

// Digest names a price row by its content.
type Digest [16]byte

// EncodePrice returns the record of a price row.
func EncodePrice(p *exchange.Price) []byte {
	b := newRecord(256)
	b.text(p.Name)
	b.moment(p.Effective)
	units := func(per *[exchange.UnitCount]exchange.Amount, set *[exchange.UnitCount]bool) {
		for u := range per {
			b.flag(set[u])
			if set[u] {
				b.amount(per[u])
			}
		}
	}
	units(&p.Per, &p.Set)
	b.number(uint64(len(p.Tiers)))
	for i := range p.Tiers {
		b.number(uint64(p.Tiers[i].Above))
		units(&p.Tiers[i].Per, &p.Tiers[i].Set)
	}
	return b
}

// DecodePrice reads a record; ok is false when it is damaged.
func DecodePrice(record []byte) (p exchange.Price, ok bool) {
	d := readRecord(record)
	units := func(per *[exchange.UnitCount]exchange.Amount, set *[exchange.UnitCount]bool) {
		for u := range per {
			if set[u] = d.flag(); set[u] {
				per[u] = d.amount()
			}
		}
	}
	p.Name = d.text(MaxName)
	p.Effective = d.moment()
	units(&p.Per, &p.Set)
	for range d.count(maxTiers) {
		var t exchange.Tier
		t.Above = int64(min(d.number(), math.MaxInt64))
		units(&t.Per, &t.Set)
		p.Tiers = append(p.Tiers, t)
	}
	return p, d.whole() && CheckPrice(&p) == nil
}

// maxTiers is how many tiers a price row has at most.
const maxTiers = 32

// CheckPrice refuses a row that can not be a price.
func CheckPrice(p *exchange.Price) error {
	bad := len(p.Name) > MaxName || len(p.Tiers) > maxTiers
	for _, a := range p.Per {
		bad = bad || a.Sign() < 0
	}
	for i := range p.Tiers {
		bad = bad || p.Tiers[i].Above < 0
		for _, a := range p.Tiers[i].Per {
			bad = bad || a.Sign() < 0
		}
	}
	if bad {
		return fmt.Errorf("price row %.40q has a negative price, or too long a name or too many tiers", p.Name)
	}
	return nil
}

// DigestOf returns the digest of a row.
func DigestOf(p *exchange.Price) Digest {
	sum := sha256.Sum256(EncodePrice(p))
	return Digest(sum[:len(Digest{})])
}

// Totals is what a stretch of entries comes to. Charged + Excess = Served: what was taken for calls, and what could not
// be because it was more than was held.
type Totals struct {
	Entries         uint64
	Charges         uint64
	Charged         exchange.Amount
	Estimates       uint64 // of the charges, those the provider did not report the usage of
	EstimatedAmount exchange.Amount
	Served          exchange.Amount // what the usage of all charges costs at their prices, worked out again
	Excess          exchange.Amount
	Credited        exchange.Amount
	Refunded        exchange.Amount
	Adjusted        exchange.Amount
}

func (t *Totals) encode(b *encoder) {
	b.number(t.Entries)
	b.number(t.Charges)
	b.number(t.Estimates)
	for _, a := range []exchange.Amount{t.Charged, t.EstimatedAmount, t.Served, t.Excess, t.Credited, t.Refunded, t.Adjusted} {
		b.amount(a)
	}
}

func (t *Totals) decode(d *decoder) {
	t.Entries, t.Charges, t.Estimates = d.number(), d.number(), d.number()
	for _, a := range []*exchange.Amount{&t.Charged, &t.EstimatedAmount, &t.Served, &t.Excess, &t.Credited, &t.Refunded, &t.Adjusted} {
		*a = d.amount()
	}
}

// Add counts one entry. It works out again what a charge costs and fails when that is not what was charged.
func (t *Totals) Add(e *Entry, price func(Digest) *exchange.Price) error {
	t.Entries++
	switch e.Kind {
	case Credit:
		t.Credited = t.Credited.Add(e.Amount)
	case Refund:
		t.Refunded = t.Refunded.Add(e.Amount)
	case Adjustment:
		amount := e.Amount
		if e.To == Adjustments {
			amount = amount.Neg()
		}
		t.Adjusted = t.Adjusted.Add(amount)
	case Charge:
		var cost exchange.Amount
		if e.Row != (Digest{}) {
			row := price(e.Row)
			if row == nil {
				return fmt.Errorf("entry %d has an unknown price", e.Seq)
			}
			var ok bool
			if cost, ok = row.Cost(&e.Usage); !ok {
				cost = e.Held // beyond what can be counted; it was charged what was held
			}
		}
		due := cost
		if cost.Cmp(e.Held) > 0 {
			due = e.Held
		}
		if due != e.Amount {
			return fmt.Errorf("entry %d charges %s for usage that costs %s with %s held", e.Seq, e.Amount, cost, e.Held)
		}
		t.Charges++
		t.Charged = t.Charged.Add(e.Amount)
		t.Served = t.Served.Add(cost)
		t.Excess = t.Excess.Add(cost.Sub(due))
		if e.Flags&Estimated != 0 {
			t.Estimates++
			t.EstimatedAmount = t.EstimatedAmount.Add(e.Amount)
		}
	}
	return nil
}

// Floor says up to where entries were folded into opening balances, and what they came to.
type Floor struct {
	Seq    uint64
	Chain  [ChainSize]byte
	Totals Totals
}

// Encode returns the record.
func (f *Floor) Encode() []byte {
	b := newRecord(192)
	b.number(f.Seq)
	b.octets(f.Chain[:])
	f.Totals.encode(&b)
	return b
}

// DecodeFloor reads a record; ok is false when it is damaged.
func DecodeFloor(record []byte) (f Floor, ok bool) {
	d := readRecord(record)
	f.Seq = d.number()
	copy(f.Chain[:], d.take(ChainSize))
	f.Totals.decode(d)
	return f, d.whole()
}

// EncodeOpening returns the record of an opening balance.
func EncodeOpening(a exchange.Amount) []byte { return a.Append([]byte{version}) }

// DecodeOpening reads what EncodeOpening returned.
func DecodeOpening(record []byte) (exchange.Amount, bool) {
	d := readRecord(record)
	a := d.amount()
	return a, d.whole()
}
