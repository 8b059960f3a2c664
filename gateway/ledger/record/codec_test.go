package record

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// money reads an amount.
func money(s string) exchange.Amount {
	a, err := exchange.ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

// price returns a row of one unit of money for each input token and two for each output token.
func price() *exchange.Price {
	p := &exchange.Price{Name: "plain@1"}
	p.Per[exchange.Input], p.Set[exchange.Input] = money("1"), true
	p.Per[exchange.Output], p.Set[exchange.Output] = money("2"), true
	return p
}

func usage(input, output int64) (u exchange.Usage) {
	u.Units[exchange.Input], u.Units[exchange.Output] = input, output
	return u
}

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
		Row: DigestOf(p), Key: "key_a",
	}
	i := Intent{
		Account: "a", Exchange: "x", Model: "m", Held: money("2"), Placed: e.Time, Price: e.Row, Checkpoint: u,
		Attempts: []Attempt{{Upstream: "u", Model: "um", Number: 1}, {Exchange: "y", Number: 2}}, Tags: e.Tags, Key: "key_a",
	}
	before, began := e, i // as they were written before keys were recorded
	before.Key, began.Key = "", ""
	var s Spend
	s.Add(money("3"), e.Time)
	f := Floor{Seq: 9, Totals: Totals{Entries: 9, Charges: 4, Charged: money("3")}}
	return map[string][]byte{
		"entry": append(EncodeEntry(&e), make([]byte, ChainSize)...), "intent": i.Encode(),
		"entry without a key":  append(EncodeEntry(&before), make([]byte, ChainSize)...),
		"intent without a key": began.Encode(),
		"price":                EncodePrice(p),
		"account":              Account{Closed: true, Opened: e.Time, Total: money("-7")}.Encode(),
		"head":                 Head{Currency: "USD", Boot: 3, Group: 1 << 40, Seq: 5}.Encode(),
		"marker":               Marker{Seq: 4, Amount: money("3"), Refunded: money("1")}.Encode(),
		"keyed":                Keyed{Kind: Refund, Account: "a", Amount: money("1"), Hold: "n-1-2", Seq: 7, Time: e.Time}.Encode(),
		"floor":                f.Encode(),
		"spend":                s.Encode(),
		"opening":              money("5").Append([]byte{version}),
	}
}

// again decodes a record of a kind and encodes what it says. ok is false when it can not be decoded.
func again(kind string, b []byte) (encoded []byte, ok bool) {
	switch kind {
	case "entry", "entry without a key":
		e, chain, ok := DecodeEntry(1, b)
		return append(EncodeEntry(&e), chain[:]...), ok
	case "intent", "intent without a key":
		v, ok := DecodeIntent(b)
		return v.Encode(), ok
	case "spend":
		v, ok := DecodeSpend(b)
		return v.Encode(), ok
	case "price":
		v, ok := DecodePrice(b)
		return EncodePrice(&v), ok
	case "account":
		v, ok := DecodeAccount(b)
		return v.Encode(), ok
	case "head":
		v, ok := DecodeHead(b)
		return v.Encode(), ok
	case "marker":
		v, ok := DecodeMarker(b)
		return v.Encode(), ok
	case "keyed":
		v, ok := DecodeKeyed(b)
		return v.Encode(), ok
	case "floor":
		v, ok := DecodeFloor(b)
		return v.Encode(), ok
	default:
		v, ok := DecodeOpening(b)
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
		b[0] = 9
		if _, ok := again(kind, b); ok {
			t.Errorf("%s: another version", kind)
		}
	}
}

func TestPriceRecord(t *testing.T) {
	t.Parallel()
	p, ok := DecodePrice(sample()["price"])
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
