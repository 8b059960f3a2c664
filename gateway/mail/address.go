package mail

import (
	"fmt"
	netmail "net/mail"
	"strings"

	"golang.org/x/net/idna"
)

// Address is the one form of an e-mail address: trimmed, lower-case, its domain in ASCII. It is an ErrInvalid that does not
// repeat what was given where it is none that mail can be sent to: one address alone, with a domain of two names at least.
func Address(text string) (string, error) {
	bad := fmt.Errorf("%w: not an e-mail address", ErrInvalid)
	text = strings.TrimSpace(text)
	at := strings.LastIndexByte(text, '@')
	if at < 1 || at > 64 || len(text) > 254 {
		return "", bad
	}
	local := strings.ToLower(text[:at])
	for _, r := range local {
		// The characters of RFC 5322 section 3.2.3, and no quoting: addresses with other ones hardly are any.
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r) {
			return "", bad
		}
	}
	domain, err := idna.Lookup.ToASCII(text[at+1:])
	if err != nil || !strings.Contains(domain, ".") || strings.HasSuffix(domain, ".") || strings.Trim(domain, "0123456789.") == "" {
		return "", bad
	}
	address := local + "@" + strings.ToLower(domain)
	if a, err := netmail.ParseAddress(address); err != nil || a.Address != address || len(address) > 254 {
		return "", bad
	}
	return address, nil
}
