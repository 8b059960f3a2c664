package ledger

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// sample returns one record of every kind.
func sample() map[string][]byte {
	p := price()
	p.Effective = time.UnixMicro(1_700_000_000_000_000)
	p.Tiers = []exchange.Tier{{Above: 200_000, Per: p.Per, Set: p.Set}}
	u := usage(3, 1<<40)
	u.Estimated = true
	e := Entry{
		Kind: Charge, Flags: Estimated | Capped, Time: time.UnixMicro(1_700_000_000_000_001), From: "a", To: Revenue,
		Amount: money("1.5"), Balance: money("-2"), Ref: "n-1-2", Note: "note", Model: "m", Upstream: "u", UpstreamModel: "um",
		Exchange: "x", Attempts: 3, Usage: u, Price: p.Name, Held: money("2"), Tags: map[string]string{"b": "2", "a": "1"},
		price: digestOf(p),
	}
	i := intent{
		Account: "a", Exchange: "x", Model: "m", Held: money("2"), Placed: e.Time, Price: e.price, Checkpoint: u,
		Attempts: []Attempt{{Upstream: "u", Model: "um", Number: 1}, {Exchange: "y", Number: 2}}, Tags: e.Tags,
	}
	f := floor{seq: 9, totals: Totals{Entries: 9, Charges: 4, Charged: money("3")}}
	return map[string][]byte{
		"entry": append(encodeEntry(&e), make([]byte, chainSize)...), "intent": i.encode(), "price": encodePrice(p),
		"account": accountRecord{closed: true, opened: e.Time, total: money("-7")}.encode(),
		"head":    head{currency: "USD", boot: 3, group: 1 << 40, seq: 5}.encode(),
		"marker":  marker{seq: 4, amount: money("3"), refunded: money("1")}.encode(),
		"keyed":   keyed{kind: Refund, account: "a", amount: money("1"), hold: "n-1-2", seq: 7, time: e.Time}.encode(),
		"floor":   f.encode(),
		"opening": money("5").Append([]byte{version}),
	}
}

// again decodes a record of a kind and encodes what it says. ok is false when it can not be decoded.
func again(kind string, b []byte) (encoded []byte, ok bool) {
	switch kind {
	case "entry":
		e, chain, ok := decodeEntry(1, b)
		return append(encodeEntry(&e), chain[:]...), ok
	case "intent":
		v, ok := decodeIntent(b)
		return v.encode(), ok
	case "price":
		v, ok := decodePrice(b)
		return encodePrice(&v), ok
	case "account":
		v, ok := decodeAccount(b)
		return v.encode(), ok
	case "head":
		v, ok := decodeHead(b)
		return v.encode(), ok
	case "marker":
		v, ok := decodeMarker(b)
		return v.encode(), ok
	case "keyed":
		v, ok := decodeKeyed(b)
		return v.encode(), ok
	case "floor":
		v, ok := decodeFloor(b)
		return v.encode(), ok
	default:
		v, ok := decodeOpening(b)
		return v.Append([]byte{version}), ok
	}
}

// A record says one thing in one way: what is decoded encodes to the same octets, and no part of it decodes.
func TestRecords(t *testing.T) {
	t.Parallel()
	for kind, b := range sample() {
		got, ok := again(kind, b)
		if !ok || !bytes.Equal(got, b) {
			t.Errorf("%s: %v, %x became %x", kind, ok, b, got)
		}
		for n := range b {
			if _, ok := again(kind, b[:n]); ok {
				t.Errorf("%s: the first %d of %d octets pass for the whole", kind, n, len(b))
			}
		}
		if _, ok := again(kind, append(bytes.Clone(b), 0)); ok {
			t.Errorf("%s: an octet too many", kind)
		}
		b[0] = version + 1
		if _, ok := again(kind, b); ok {
			t.Errorf("%s: another version", kind)
		}
	}
}

func TestPriceRecord(t *testing.T) {
	t.Parallel()
	p, ok := decodePrice(sample()["price"])
	want := price()
	want.Effective = time.UnixMicro(1_700_000_000_000_000)
	want.Tiers = []exchange.Tier{{Above: 200_000, Per: want.Per, Set: want.Set}}
	if !ok || !reflect.DeepEqual(&p, want) {
		t.Errorf("%+v", p)
	}
}

// No octets make a decoder panic, and whatever decodes encodes to the same octets.
func FuzzRecords(f *testing.F) {
	for kind, b := range sample() {
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		if got, ok := again(kind, b); ok && !bytes.Equal(got, b) {
			t.Errorf("%s: %x became %x", kind, b, got)
		}
	})
}
