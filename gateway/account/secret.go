package account

import (
	"crypto/rand"
	"hash/crc32"
	"math/big"
	"slices"
)

// A key's text is Prefix, 256 random bits in 43 digits of base 62, and the CRC-32 of all that in 6 more: scanners for
// leaked secrets can tell it from other text, and a mistyped key is refused without looking it up.
const (
	Prefix       = "pstn_"
	randomDigits = 43
	checkDigits  = 6
	keyLength    = len(Prefix) + randomDigits + checkDigits
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newSecret returns a new key.
func newSecret() string {
	var random [32]byte
	rand.Read(random[:]) // never fails
	n := new(big.Int).SetBytes(random[:])
	base, digit := big.NewInt(int64(len(digits))), new(big.Int)
	b := make([]byte, randomDigits)
	for i := range slices.Backward(b) {
		n.DivMod(n, base, digit)
		b[i] = digits[digit.Int64()]
	}
	b = append([]byte(Prefix), b...)
	check := checksum(b)
	return string(append(b, check[:]...))
}

// checksum returns the digits that end a key.
func checksum(b []byte) (check [checkDigits]byte) {
	n := crc32.ChecksumIEEE(b)
	for i := range slices.Backward(check[:]) {
		check[i] = digits[n%uint32(len(digits))]
		n /= uint32(len(digits))
	}
	return check
}

// wellFormed reports whether b can be a key: its prefix, length, digits and checksum are right.
func wellFormed(b []byte) bool {
	if len(b) != keyLength || string(b[:len(Prefix)]) != Prefix {
		return false
	}
	for _, c := range b[len(Prefix):] {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	check := checksum(b[:keyLength-checkDigits])
	return string(b[keyLength-checkDigits:]) == string(check[:])
}
