package abi_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/postern-gateway/postern/sdk/abi"
)

func sample() []byte {
	b := abi.AppendObject(nil, 5)
	b = abi.AppendString(abi.AppendKey(b, "name"), "Ada")
	b = abi.AppendInt(abi.AppendKey(b, "count"), -7)
	b = abi.AppendFloat(abi.AppendKey(b, "share"), 0.25)
	b = abi.AppendBool(abi.AppendKey(b, "yes"), true)
	b = abi.AppendList(abi.AppendKey(b, "list"), 3)
	return abi.AppendNull(abi.AppendString(abi.AppendInt(b, math.MaxInt64), ""))
}

func TestValue(t *testing.T) {
	raw := append(sample(), 0xff)
	v, rest, ok := abi.ReadValue(raw)
	if !ok || !bytes.Equal(rest, []byte{0xff}) || !bytes.Equal(v.Raw(), sample()) {
		t.Fatal("the value's bounds are wrong")
	}
	list := v.Member("list")
	if v.Len() != 5 || v.Member("name").Text() != "Ada" || v.Member("count").Int() != -7 || v.Member("share").Float() != 0.25 ||
		!v.Member("yes").Bool() || list.Len() != 3 || list.At(0).Int() != math.MaxInt64 || list.At(1).Kind() != abi.KindString || list.At(2).Kind() != abi.KindNull {
		t.Error("members read back wrong")
	}
	// What is missing, or of another kind, reads as nothing.
	for _, nothing := range []abi.Value{{}, v.Member("none"), v.At(0), list.At(3), list.At(-1), list.Member("x"), v.Member("name").Member("x")} {
		if nothing.Kind() != abi.KindNull || nothing.Int() != 0 || nothing.Text() != "" || nothing.Len() != 0 || nothing.Bool() {
			t.Errorf("%v is something", nothing)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		v, _, _ := abi.ReadValue(raw)
		if v.Member("list").At(0).Int() == 0 {
			t.Error("wrong")
		}
	}); n != 0 {
		t.Errorf("reading allocates %v times", n)
	}
}

func TestValueMalformed(t *testing.T) {
	t.Parallel()
	whole := sample()
	for n := range whole {
		if _, _, ok := abi.ReadValue(whole[:n]); ok {
			t.Errorf("%d of %d octets are taken for a value", n, len(whole))
		}
	}
	deep := func(n int) []byte { return append(bytes.Repeat(abi.AppendList(nil, 1), n), 0) }
	if _, _, ok := abi.ReadValue(deep(32)); !ok {
		t.Error("32 levels are refused")
	}
	if _, _, ok := abi.ReadValue(deep(33)); ok {
		t.Error("33 levels are taken")
	}
	for _, b := range [][]byte{nil, {7}, {4, 0xff, 0xff, 0xff, 0xff}, {5, 0xff, 0xff, 0xff, 0xff, 0}, {6, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}} {
		if _, _, ok := abi.ReadValue(b); ok {
			t.Errorf("% x is taken for a value", b)
		}
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	action, address, length := abi.Unpack(abi.Result(abi.ActionDone, 0xfffffff0, 0xffffff))
	if action != abi.ActionDone || address != 0xfffffff0 || length != 0xffffff {
		t.Error(action, address, length)
	}
}

// Whatever octets are read as a value, walking through them stays inside and ends.
func FuzzValue(f *testing.F) {
	f.Add(sample())
	f.Add([]byte{6, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, ok := abi.ReadValue(b)
		if !ok {
			return
		}
		if len(v.Raw())+len(rest) != len(b) {
			t.Fatal("octets are lost")
		}
		var walk func(v abi.Value, depth int) int
		walk = func(v abi.Value, depth int) int {
			n := 0
			for key, m := range v.Each {
				n++
				walk(m, depth+1)
				_ = v.Member(string(key))
			}
			_, _, _, _, _ = v.Bool(), v.Int(), v.Float(), v.Bytes(), v.At(0)
			if n != v.Len() {
				t.Fatalf("%d members of %d", n, v.Len())
			}
			return n
		}
		if len(b) < 1<<10 { // a member's look-up is linear
			walk(v, 0)
		}
	})
}
