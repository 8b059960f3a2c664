package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// Amount is money: a signed number of pico-units (1e-12) of the ledger's currency in 128 bits. List prices go down
// to 1.9e-8 a token, so micro-units would underflow; 64 bits of pico-units would end at nine million.
// The zero value is nothing. Amounts can be compared with ==.
type Amount struct {
	hi int64
	lo uint64
}

// AmountSize is the number of octets of an encoded Amount.
const AmountSize = 16

// decimals is how many digits after the point an Amount can hold.
const decimals = 12

// picoPerUnit is 10^decimals.
const picoPerUnit = 1_000_000_000_000

// ErrAmount is wrapped by every error of ParseAmount.
var ErrAmount = errors.New("not an amount of money")

// Pico returns n pico-units.
func Pico(n int64) Amount {
	return Amount{hi: n >> 63, lo: uint64(n)}
}

// Add returns a+b. Sums of stored amounts stay 60 bits below the limit, so it does not overflow.
func (a Amount) Add(b Amount) Amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	return Amount{hi: a.hi + b.hi + int64(carry), lo: lo}
}

// Sub returns a-b.
func (a Amount) Sub(b Amount) Amount {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	return Amount{hi: a.hi - b.hi - int64(borrow), lo: lo}
}

// Neg returns -a.
func (a Amount) Neg() Amount { return Amount{}.Sub(a) }

// Times returns a*n for a count n of at least 0; a negative n gives a panic, being a programming error. ok is false
// when the product does not fit, and then the result is meaningless.
func (a Amount) Times(n int64) (product Amount, ok bool) {
	if n < 0 {
		panic("exchange: negative count")
	}
	negative := a.Sign() < 0
	if negative {
		a = a.Neg()
	}
	over, hi1 := bits.Mul64(uint64(a.hi), uint64(n))
	hi0, lo := bits.Mul64(a.lo, uint64(n))
	hi, carry := bits.Add64(hi0, hi1, 0)
	product = Amount{hi: int64(hi), lo: lo}
	ok = over == 0 && carry == 0 && hi>>63 == 0
	if negative {
		product = product.Neg()
	}
	return product, ok
}

// Cmp returns -1, 0 or 1 as a is less than, equal to or greater than b.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a.hi < b.hi, a.hi == b.hi && a.lo < b.lo:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// Sign returns -1, 0 or 1.
func (a Amount) Sign() int { return a.Cmp(Amount{}) }

// String returns the amount as a decimal in the currency's unit, with at least two and at most twelve digits after
// the point: "12.50", "0.00000015".
func (a Amount) String() string {
	sign := ""
	if a.Sign() < 0 {
		sign, a = "-", a.Neg()
	}
	// Two divisions by 1e12 leave whole units below 2^64 for every amount that can occur; more is printed by parts.
	q1, r := bits.Div64(uint64(a.hi)%picoPerUnit, a.lo, picoPerUnit)
	whole := fmt.Sprint(q1)
	if top := uint64(a.hi) / picoPerUnit; top > 0 {
		// top*2^64 + q1, beyond 1.8e19 currency units: exact all the same.
		whole = mulAddString(top, q1)
	}
	frac := fmt.Sprintf("%012d", r)
	frac = strings.TrimRight(frac[2:], "0")
	return sign + whole + "." + fmt.Sprintf("%012d", r)[:2] + frac
}

// mulAddString returns top*2^64+low in decimal.
func mulAddString(top, low uint64) string {
	var digits []byte
	for top > 0 || low > 0 {
		q := top / 10
		var r uint64
		low, r = bits.Div64(top%10, low, 10)
		top = q
		digits = append(digits, byte('0'+r))
	}
	for i, j := 0, len(digits)-1; i < j; i, j = i+1, j-1 {
		digits[i], digits[j] = digits[j], digits[i]
	}
	return string(digits)
}

// ParseAmount reads a decimal such as "10", "0.15" or "-2.5". More than twelve digits after the point (zeros at the
// end aside), an exponent, or more than 15 digits before it are errors: money is never rounded.
func ParseAmount(s string) (Amount, error) { return parseAmount(s, 15) }

// parseAmount is ParseAmount with that many digits before the point; 26 always fit.
func parseAmount(s string, most int) (Amount, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, frac, hasPoint := strings.Cut(digits, ".")
	frac = strings.TrimRight(frac, "0")
	if whole == "" || (hasPoint && strings.HasSuffix(s, ".")) || len(whole) > most {
		return Amount{}, fmt.Errorf("%w: %q", ErrAmount, s)
	}
	if len(frac) > decimals {
		return Amount{}, fmt.Errorf("%w: %q has more than %d digits after the point", ErrAmount, s, decimals)
	}
	var a Amount
	for _, c := range []byte(whole + frac + strings.Repeat("0", decimals-len(frac))) {
		if c < '0' || c > '9' {
			return Amount{}, fmt.Errorf("%w: %q", ErrAmount, s)
		}
		a, _ = a.Times(10)
		a = a.Add(Pico(int64(c - '0')))
	}
	if negative {
		a = a.Neg()
	}
	return a, nil
}

// MarshalText writes the amount as String does, so that JSON shows a decimal string and no float ever touches it.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote, sums beyond what ParseAmount takes included, up to 26 digits before the
// point.
func (a *Amount) UnmarshalText(b []byte) error {
	v, err := parseAmount(string(b), 26)
	if err == nil {
		*a = v
	}
	return err
}

// Append encodes the amount in AmountSize octets, big endian, for storage.
func (a Amount) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(a.hi)), a.lo)
}

// DecodeAmount reads what Append wrote; ok is false when b is shorter than AmountSize.
func DecodeAmount(b []byte) (a Amount, ok bool) {
	if len(b) < AmountSize {
		return Amount{}, false
	}
	return Amount{hi: int64(binary.BigEndian.Uint64(b)), lo: binary.BigEndian.Uint64(b[8:])}, true
}
