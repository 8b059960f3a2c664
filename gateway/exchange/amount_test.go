package exchange

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// big returns the amount as an integer of any size.
func (a Amount) big() *big.Int {
	n := new(big.Int).Lsh(big.NewInt(a.hi), 64)
	return n.Add(n, new(big.Int).SetUint64(a.lo))
}

// some returns an amount of any size, the edges more often than chance would.
func some(rng *rand.Rand) Amount {
	edges := []uint64{0, 1, math.MaxUint64, 1 << 63, math.MaxInt64, picoPerUnit, picoPerUnit - 1}
	word := func() uint64 {
		if rng.IntN(3) == 0 {
			return edges[rng.IntN(len(edges))]
		}
		return rng.Uint64() >> rng.IntN(64)
	}
	return Amount{hi: int64(word()), lo: word()}
}

// The arithmetic agrees with integers of any size, wherever the result fits.
func TestAmountAgainstBig(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	most := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 127), big.NewInt(1))
	least := new(big.Int).Neg(new(big.Int).Add(most, big.NewInt(1)))
	fits := func(n *big.Int) bool { return n.Cmp(most) <= 0 && n.Cmp(least) >= 0 }
	for range 200_000 {
		a, b, n := some(rng), some(rng), rng.Int64()>>rng.IntN(63)
		if sum := new(big.Int).Add(a.big(), b.big()); fits(sum) && a.Add(b).big().Cmp(sum) != 0 {
			t.Fatalf("%v + %v = %v", a.big(), b.big(), a.Add(b).big())
		}
		if diff := new(big.Int).Sub(a.big(), b.big()); fits(diff) && a.Sub(b).big().Cmp(diff) != 0 {
			t.Fatalf("%v - %v = %v", a.big(), b.big(), a.Sub(b).big())
		}
		if a.Cmp(b) != a.big().Cmp(b.big()) || a.Sign() != a.big().Sign() {
			t.Fatalf("Cmp(%v, %v) = %d, Sign %d", a.big(), b.big(), a.Cmp(b), a.Sign())
		}
		product := new(big.Int).Mul(a.big(), big.NewInt(n))
		got, ok := a.Times(n)
		if ok && got.big().Cmp(product) != 0 {
			t.Fatalf("%v * %d = %v, ok", a.big(), n, got.big())
		}
		if !ok && fits(product) && product.Cmp(least) != 0 && a.big().Cmp(least) != 0 {
			t.Fatalf("%v * %d does not fit, they say", a.big(), n)
		}
		if back, ok := DecodeAmount(a.Append(nil)); !ok || back != a {
			t.Fatalf("%v encoded is %v", a.big(), back.big())
		}
		// What String says is the amount, to the last digit.
		text := a.String()
		whole, frac, _ := strings.Cut(text, ".")
		said, ok := new(big.Int).SetString(whole+frac+strings.Repeat("0", decimals-len(frac)), 10)
		if !ok || len(frac) < 2 || said.Cmp(a.big()) != 0 {
			t.Fatalf("%v is written %s", a.big(), text)
		}
		var read Amount
		if err := read.UnmarshalText([]byte(text)); len(strings.TrimPrefix(whole, "-")) <= 26 && (err != nil || read != a) {
			t.Fatalf("%s is read as %v, %v", text, read, err)
		}
	}
	if _, ok := DecodeAmount(make([]byte, AmountSize-1)); ok {
		t.Error("15 octets are an amount")
	}
	defer func() {
		if recover() == nil {
			t.Error("a negative count passed")
		}
	}()
	Pico(1).Times(-1)
}

func TestParseAmount(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want string // empty: an error
	}{
		{"0", "0.00"},
		{"-0", "0.00"},
		{"10", "10.00"},
		{"0.15", "0.15"},
		{"-2.5", "-2.50"},
		{"007", "7.00"},
		{"1.10000000000000000000", "1.10"},
		{"0.000000000001", "0.000000000001"},
		{"-0.000000000001", "-0.000000000001"},
		{"0.000000019", "0.000000019"},
		{"999999999999999.999999999999", "999999999999999.999999999999"},
		{"0.0000000000001", ""},
		{"1000000000000000", ""},
		{"", ""}, {"-", ""}, {".", ""}, {".5", ""}, {"5.", ""}, {"-.5", ""}, {"+5", ""}, {"--5", ""}, {"1e3", ""}, {"1_000", ""},
		{"1,5", ""}, {"1.2.3", ""}, {"1.0.0", ""}, {"1.-5", ""}, {" 1", ""}, {"1 ", ""}, {"0x10", ""}, {"NaN", ""}, {"Inf", ""},
		{"１", ""}, {"1.5.", ""}, {"1.00.", ""},
	}
	for _, test := range tests {
		a, err := ParseAmount(test.in)
		if test.want == "" {
			if !errors.Is(err, ErrAmount) || a != (Amount{}) {
				t.Errorf("%q: %v, %v", test.in, a, err)
			}
			continue
		}
		if err != nil || a.String() != test.want {
			t.Errorf("%q: %s, %v, want %s", test.in, a, err, test.want)
		}
	}
}

// What is read is written the same way, and is exact.
func FuzzParseAmount(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "123456789012345.000000000001", "1.2.3", "-", "0.0000000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAmount(s)
		if err != nil {
			return
		}
		exact, ok := new(big.Rat).SetString(s)
		if !ok || exact.Mul(exact, big.NewRat(picoPerUnit, 1)).Cmp(new(big.Rat).SetInt(a.big())) != 0 {
			t.Errorf("%q became %s", s, a)
		}
		again, err := ParseAmount(a.String())
		if err != nil || again != a {
			t.Errorf("%q became %s became %s, %v", s, a, again, err)
		}
	})
}

func BenchmarkCost(b *testing.B) {
	p := Price{Tiers: []Tier{{Above: 200_000}}}
	p.Per[Input], p.Set[Input] = Pico(150_000), true
	p.Per[Output], p.Set[Output] = Pico(600_000), true
	u := Usage{}
	u.Units[Input], u.Units[CachedInput], u.Units[Output] = 1000, 200, 300
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Cost(&u); !ok {
			b.Fatal("it does not fit")
		}
	}
}
