package ledger

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

// The keys of the records, in the order in which Verify meets them. DESIGN.md says what each one holds.
const (
	accountPrefix = "ledger/a/" // + account
	openingPrefix = "ledger/b/" // + account
	floorKey      = "ledger/f"
	headKey       = "ledger/h"
	intentPrefix  = "ledger/i/" // + hold
	oncePrefix    = "ledger/k/" // + idempotency key
	pricePrefix   = "ledger/p/" // + digest
	entryPrefix   = "ledger/t/" // + sequence number, 8 octets, big endian
	settledPrefix = "ledger/u/" // + hold
	indexPrefix   = "ledger/x/" // + account, a zero octet, sequence number
	allPrefix     = "ledger/"
)

// version is the first octet of every value.
const version = 1

func accountKey(id string) []byte { return []byte(accountPrefix + id) }
func openingKey(id string) []byte { return []byte(openingPrefix + id) }
func intentKey(id string) []byte  { return []byte(intentPrefix + id) }
func onceKey(key string) []byte   { return []byte(oncePrefix + key) }
func settledKey(id string) []byte { return []byte(settledPrefix + id) }
func priceKey(d digest) []byte    { return append([]byte(pricePrefix), d[:]...) }
func entryKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(entryPrefix), seq)
}
func indexKey(id string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(indexPrefix+id), 0), seq)
}

// sequenceOf reads the sequence number at the end of a key.
func sequenceOf(b []byte) (uint64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// chainSize is the length of the hash at the end of an entry.
const chainSize = sha256.Size

// link returns the hash that chains an entry to the one before it.
func link(before [chainSize]byte, seq uint64, body []byte) [chainSize]byte {
	h := sha256.New()
	h.Write(before[:])
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], seq)
	h.Write(number[:])
	h.Write(body)
	var sum [chainSize]byte
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

	price digest // the row itself
}

// receipt makes the receipt of a charge.
func (e *Entry) receipt() *exchange.Receipt {
	return &exchange.Receipt{
		ID: e.Ref, Account: e.From, Model: e.Model, Usage: e.Usage, Price: e.Price, Amount: e.Amount, Balance: e.Balance,
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
	b   []byte
	bad bool
}

func readRecord(b []byte) *decoder {
	d := &decoder{b: b}
	if d.octet() != version {
		d.bad = true
	}
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

func (d *decoder) digest() (v digest) {
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

// encodeEntry returns the record of an entry without the hash that follows it; Seq is in its key.
func encodeEntry(e *Entry) []byte {
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
		b.octets(e.price[:])
		b.amount(e.Held)
		b.tags(e.Tags)
	}
	return b
}

// decodeEntry reads an entry and the hash that follows it.
func decodeEntry(seq uint64, record []byte) (e Entry, chain [chainSize]byte, ok bool) {
	if len(record) < chainSize {
		return e, chain, false
	}
	body, hash := record[:len(record)-chainSize], record[len(record)-chainSize:]
	copy(chain[:], hash)
	d := readRecord(body)
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
		e.price = d.digest()
		e.Held = d.amount()
		e.Tags = d.tags()
	}
	if e.Kind < Credit || e.Kind > Adjustment || e.Amount.Sign() < 0 {
		d.bad = true
	}
	return e, chain, d.whole()
}

// intent is what the store knows of an open hold.
type intent struct {
	Account    string
	Exchange   string
	Model      string
	Held       exchange.Amount
	Placed     time.Time
	Price      digest // zero: free
	Attempts   []Attempt
	Checkpoint exchange.Usage
	Tags       map[string]string
}

func (i *intent) encode() []byte {
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
	return b
}

func decodeIntent(record []byte) (i intent, ok bool) {
	d := readRecord(record)
	i.Account = d.text(MaxName)
	i.Exchange = d.text(MaxName)
	i.Model = d.text(MaxName)
	i.Held = d.amount()
	i.Placed = d.moment()
	i.Price = d.digest()
	for range d.count(maxAttempts) {
		i.Attempts = append(i.Attempts, Attempt{
			Exchange: d.text(MaxName), Upstream: d.text(MaxName), Model: d.text(MaxName), Number: d.count(math.MaxInt32),
		})
	}
	i.Checkpoint = d.usage()
	i.Tags = d.tags()
	if i.Held.Sign() < 0 || i.Account == "" {
		d.bad = true
	}
	return i, d.whole()
}

// accountRecord is an account as it is stored.
type accountRecord struct {
	closed bool
	opened time.Time
	total  exchange.Amount
}

func (a accountRecord) encode() []byte {
	b := newRecord(32)
	b.flag(a.closed)
	b.moment(a.opened)
	b.amount(a.total)
	return b
}

func decodeAccount(record []byte) (a accountRecord, ok bool) {
	d := readRecord(record)
	a = accountRecord{closed: d.flag(), opened: d.moment(), total: d.amount()}
	return a, d.whole()
}

// head says where the entries end. It is written with every group.
type head struct {
	currency string
	boot     uint64 // counts openings; a part of every id
	group    uint64 // counts groups, tried ones included
	seq      uint64 // of the last entry
	chain    [chainSize]byte
}

func (h head) encode() []byte {
	b := newRecord(64)
	b.text(h.currency)
	b.number(h.boot)
	b.number(h.group)
	b.number(h.seq)
	b.octets(h.chain[:])
	return b
}

func decodeHead(record []byte) (h head, ok bool) {
	d := readRecord(record)
	h = head{currency: d.text(3), boot: d.number(), group: d.number(), seq: d.number()}
	copy(h.chain[:], d.take(chainSize))
	return h, d.whole()
}

// marker says that a hold was settled, and by which entry.
type marker struct {
	seq      uint64
	amount   exchange.Amount
	refunded exchange.Amount
}

func (m marker) encode() []byte {
	b := newRecord(48)
	b.number(m.seq)
	b.amount(m.amount)
	b.amount(m.refunded)
	return b
}

func decodeMarker(record []byte) (m marker, ok bool) {
	d := readRecord(record)
	m = marker{seq: d.number(), amount: d.amount(), refunded: d.amount()}
	return m, d.whole()
}

// keyed says what was done under an idempotency key. It outlives its entry.
type keyed struct {
	kind    Kind
	account string
	amount  exchange.Amount // as it was asked for: an adjustment's can be negative
	hold    string          // a refund's
	seq     uint64
	time    time.Time

	key string // not stored: it is in the record's key
}

func (k keyed) encode() []byte {
	b := newRecord(96)
	b.octet(byte(k.kind))
	b.text(k.account)
	b.amount(k.amount)
	b.text(k.hold)
	b.number(k.seq)
	b.moment(k.time)
	return b
}

func decodeKeyed(record []byte) (k keyed, ok bool) {
	d := readRecord(record)
	k = keyed{
		kind: Kind(d.octet()), account: d.text(MaxName), amount: d.amount(), hold: d.text(MaxName), seq: d.number(), time: d.moment(),
	}
	return k, d.whole()
}

// entry returns the entry that was made, as far as the record knows it.
func (k keyed) entry() Entry {
	other := map[Kind]string{Credit: Payments, Adjustment: Adjustments, Refund: Revenue}[k.kind]
	e := Entry{Seq: k.seq, Time: k.time, Kind: k.kind, From: other, To: k.account, Amount: k.amount, Ref: k.key, Of: k.hold}
	if k.amount.Sign() < 0 {
		e.From, e.To, e.Amount = k.account, other, k.amount.Neg()
	}
	return e
}

// digest names a price row by its content.
type digest [16]byte

// priceRow is a price row that holds refer to.
type priceRow struct {
	row    exchange.Price
	stored bool
}

func encodePrice(p *exchange.Price) []byte {
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

func decodePrice(record []byte) (p exchange.Price, ok bool) {
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
	return p, d.whole() && checkPrice(&p) == nil
}

// maxTiers is how many tiers a price row has at most.
const maxTiers = 32

// checkPrice refuses a row that can not be a price.
func checkPrice(p *exchange.Price) error {
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
		return fmt.Errorf("%w: price row %q", ErrInvalid, clip(p.Name, MaxName))
	}
	return nil
}

// digestOf returns the digest of a row.
func digestOf(p *exchange.Price) digest {
	sum := sha256.Sum256(encodePrice(p))
	return digest(sum[:len(digest{})])
}

// intern returns the ledger's own copy of a row, so that a hold's price can not change.
func (l *Ledger) intern(key digest, p *exchange.Price) *priceRow {
	if row := l.prices[key]; row != nil {
		return row
	}
	row := &priceRow{row: *p}
	row.row.Tiers = slices.Clone(p.Tiers)
	l.prices[key] = row
	return row
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

// floor says up to where entries were folded into opening balances, and what they came to.
type floor struct {
	seq    uint64
	chain  [chainSize]byte
	totals Totals
}

func (f *floor) encode() []byte {
	b := newRecord(192)
	b.number(f.seq)
	b.octets(f.chain[:])
	f.totals.encode(&b)
	return b
}

func decodeFloor(record []byte) (f floor, ok bool) {
	d := readRecord(record)
	f.seq = d.number()
	copy(f.chain[:], d.take(chainSize))
	f.totals.decode(d)
	return f, d.whole()
}
