package usage

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// Record is one call.
type Record struct {
	ID      string    // the exchange's
	Time    time.Time // when it began, to the microsecond
	Account string
	Key     string // the API key's id; empty where the caller was known by something else
	Route   string
	Model   string // the public model; empty for calls that are none of a model
	Usage   exchange.Usage
	Amount  exchange.Amount // what was charged
	Receipt string          // empty: nothing was
	Entry   uint64          // the number of the ledger's entry; 0 without a receipt
	Status  int             // of the reply; 0: not known
	Took    time.Duration   // to the end of the reply
	First   time.Duration   // to its head; 0: not known

	Cut       bool // the reply was broken off, by whoever
	Unsettled bool // the charge was still to come when the call ended
	Completed bool // made of the ledger's entry
}

// failed reports whether the caller did not get what it asked for.
func (r *Record) failed() bool { return r.Status >= 400 || r.Cut }

// The records. Accounts are named by their SHA-256, so that keys have one length and whatever an account is called, it can
// not reach into another's. Times are inverted: what is newest comes first.
const (
	accountPrefix = "usage/a/" // + account: its name
	dayPrefix     = "usage/d/" // + account, day: a row of sums
	floorKey      = "usage/f"  // what was swept
	gonePrefix    = "usage/g/" // + account: when its usage was removed
	hourPrefix    = "usage/h/" // + account, hour: a row of sums
	markKey       = "usage/m"  // what of the ledger was read
	recordPrefix  = "usage/r/" // + account, time, exchange: a record
	secretKey     = "usage/s"
	allPrefix     = "usage/"
)

// digest names an account in keys.
type digest [sha256.Size]byte

func digestOf(account string) digest { return sha256.Sum256([]byte(account)) }

func (d digest) key(prefix string) []byte {
	return append(append(make([]byte, 0, len(prefix)+len(d)+16), prefix...), d[:]...)
}

// maxText bounds each text of a record, in octets.
const maxText = 128

func clip(s string) string { return s[:min(len(s), maxText)] }

// micros is a time as it is stored.
func micros(t time.Time) uint64 { return uint64(max(t.UnixMicro(), 0)) }

// before is the inverted time in keys that all that began before t come at or after.
func before(t time.Time) []byte { return binary.BigEndian.AppendUint64(nil, ^micros(t)+1) }

// place is where in its account a record is.
func (r *Record) place() []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(r.ID)), ^micros(r.Time)), clip(r.ID)...)
}

func (r *Record) key() []byte { return append(digestOf(r.Account).key(recordPrefix), r.place()...) }

// version is the first octet of every value.
const version = 1

// The flags of a record.
const (
	flagEstimated = 1 << iota
	flagCut
	flagUnsettled
	flagCompleted
)

// encode returns the record's value; when and under what id it happened is in its key.
func (r *Record) encode() []byte {
	b := make([]byte, 0, 192)
	flags := byte(0)
	for i, f := range [...]bool{r.Usage.Estimated, r.Cut, r.Unsettled, r.Completed} {
		if f {
			flags |= 1 << i
		}
	}
	b = append(b, version, flags)
	for _, s := range [...]string{r.Account, r.Key, r.Route, r.Model, r.Receipt} {
		s = clip(s)
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = binary.AppendUvarint(b, r.Entry)
	b = r.Amount.Append(b)
	b = binary.AppendUvarint(b, uint64(max(r.Status, 0)))
	b = binary.AppendUvarint(b, uint64(max(r.Took.Microseconds(), 0)))
	b = binary.AppendUvarint(b, uint64(max(r.First.Microseconds(), 0)))
	for unit, n := range r.Usage.Units {
		if n > 0 {
			b = binary.AppendUvarint(append(b, byte(unit)), uint64(n))
		}
	}
	return b
}

// decodeRecord reads a record; key is what follows the account's digest.
func decodeRecord(place, value []byte) (r Record, ok bool) {
	d := decoder{rest: value}
	if len(place) < 8 || d.octet() != version {
		return Record{}, false
	}
	r.Time = time.UnixMicro(int64(^binary.BigEndian.Uint64(place) & math.MaxInt64)).UTC()
	r.ID = string(place[8:])
	flags := d.octet()
	r.Usage.Estimated, r.Cut = flags&flagEstimated != 0, flags&flagCut != 0
	r.Unsettled, r.Completed = flags&flagUnsettled != 0, flags&flagCompleted != 0
	for _, s := range [...]*string{&r.Account, &r.Key, &r.Route, &r.Model, &r.Receipt} {
		*s = d.text()
	}
	r.Entry = d.number()
	r.Amount = d.amount()
	r.Status = int(min(d.number(), math.MaxInt32))
	r.Took, r.First = d.span(), d.span()
	for len(d.rest) > 0 {
		unit := exchange.Unit(d.octet())
		if n := d.number(); unit < exchange.UnitCount && n <= math.MaxInt64 {
			r.Usage.Units[unit] = int64(n)
		} else {
			d.bad = true
		}
	}
	return r, !d.bad
}

// decoder takes a value apart. After the first fault everything is zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) octet() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// count is a number that can be an int64.
func (d *decoder) count() int64 { return int64(min(d.number(), math.MaxInt64)) }

func (d *decoder) text() string {
	n := d.number()
	if n > maxText {
		d.bad, d.rest = true, nil
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) span() time.Duration {
	return time.Duration(min(d.number(), math.MaxInt64/1000)) * time.Microsecond
}

func (d *decoder) amount() exchange.Amount {
	a, ok := exchange.DecodeAmount(d.take(exchange.AmountSize))
	if !ok {
		d.bad, d.rest = true, nil
	}
	return a
}
