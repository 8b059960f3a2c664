package plugin

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

func splice(at, length uint32, put string) Op {
	value := binary.LittleEndian.AppendUint32(nil, at)
	return Op{Code: abi.OpBodySplice, Value: append(binary.LittleEndian.AppendUint32(value, length), put...)}
}

func TestApplyToBody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		ops     []Op
		want    string
		changed bool
	}{
		{"nothing", nil, "0123456789", false},
		{"replace", []Op{{Code: abi.OpBodyReplace, Value: []byte("new")}}, "new", true},
		{"replace with nothing", []Op{{Code: abi.OpBodyReplace}}, "", true},
		{"drop", []Op{{Code: abi.OpBodyDrop}}, "", true},
		{"insert at the beginning", []Op{splice(0, 0, "a")}, "a0123456789", true},
		{"insert at the end", []Op{splice(10, 0, "a")}, "0123456789a", true},
		{"cut at the beginning", []Op{splice(0, 3, "")}, "3456789", true},
		{"cut all", []Op{splice(0, 10, "")}, "", true},
		{"several", []Op{splice(0, 1, ""), splice(1, 0, "x"), splice(1, 2, "yyy"), splice(9, 1, "")}, "xyyy345678", true},
		{"nothing by nothing", []Op{splice(0, 0, "")}, "0123456789", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := []byte("0123456789")
			var header exchange.Header
			after, changed := (&Result{Ops: test.ops}).Apply(new(exchange.Exchange), &header, body)
			if string(after) != test.want || changed != test.changed {
				t.Errorf("%q, changed %t, want %q, %t", after, changed, test.want, test.changed)
			}
			if string(body) != "0123456789" {
				t.Errorf("the event's body was overwritten with %q", body)
			}
		})
	}
}

func TestApplyToExchange(t *testing.T) {
	t.Parallel()
	text := func(s string) []byte { return abi.AppendString(nil, s) }
	x := &exchange.Exchange{}
	x.Call.Targets = []exchange.Target{{Upstream: "a"}, {Upstream: "b"}, {Upstream: "c"}}
	header := exchange.Header{{Name: "old", Value: "1"}, {Name: "gone", Value: "1"}}
	r := Result{Ops: []Op{
		{Code: abi.OpHeaderSet, Key: []byte("old"), Value: []byte("2")},
		{Code: abi.OpHeaderAdd, Key: []byte("old"), Value: []byte("3")},
		{Code: abi.OpHeaderRemove, Key: []byte("gone")},
		{Code: abi.OpAttribute, Key: []byte("identity.account"), Value: text("acc")},
		{Code: abi.OpAttribute, Key: []byte("identity.key"), Value: text("key")},
		{Code: abi.OpAttribute, Key: []byte("identity.name"), Value: text("name")},
		{Code: abi.OpAttribute, Key: []byte("identity.scopes"), Value: abi.AppendString(abi.AppendString(abi.AppendList(nil, 2), "s"), "t")},
		{Code: abi.OpAttribute, Key: []byte("targets"), Value: abi.AppendInt(abi.AppendInt(abi.AppendList(nil, 2), 2), 0)},
		{Code: abi.OpAttribute, Key: []byte("mine.word"), Value: text("first")},
		{Code: abi.OpAttribute, Key: []byte("mine.word"), Value: text("last")},
	}}
	if _, changed := r.Apply(x, &header, nil); changed {
		t.Error("the body was changed")
	}
	if want := (exchange.Header{{Name: "old", Value: "2"}, {Name: "old", Value: "3"}}); !slices.Equal(header, want) {
		t.Errorf("header %v, want %v", header, want)
	}
	if x.Identity.Account != "acc" || x.Identity.Key != "key" || x.Identity.Name != "name" {
		t.Errorf("identity %+v", x.Identity)
	}
	if !slices.Equal(x.Identity.Scopes, []string{"s", "t"}) {
		t.Errorf("scopes %q", x.Identity.Scopes)
	}
	if to := x.Call.Targets; len(to) != 2 || to[0].Upstream != "c" || to[1].Upstream != "a" {
		t.Errorf("targets %v", to)
	}
	if got, _ := x.Attribute("mine.word"); got != "last" {
		t.Errorf("attribute %q", got)
	}
}
