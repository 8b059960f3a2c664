package secret

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
)

// ParseKey reads a key that is written as hexadecimal or base64 and has one of the given sizes in octets. Its errors do not
// repeat it.
func ParseKey(text string, sizes ...int) ([]byte, error) {
	decoders := []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	}
	for _, decode := range decoders {
		if key, err := decode(text); err == nil && slices.Contains(sizes, len(key)) {
			return key, nil
		}
	}
	list := fmt.Sprint(sizes[0])
	for i, n := range sizes[1:] {
		if i == len(sizes)-2 {
			list += fmt.Sprintf(" or %d", n)
		} else {
			list += fmt.Sprintf(", %d", n)
		}
	}
	return nil, fmt.Errorf("it is not hexadecimal or base64 of %s octets", list)
}
