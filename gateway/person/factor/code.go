// Package factor is what people prove themselves by besides a password: codes of an authenticator app, recovery codes and
// passkeys. Its main type is Set, which is all of one person's, as it is kept; what uses one up changes the Set, and has to
// be stored before the proof counts.
package factor

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"image/png"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// ErrWrong is that a code or passkey does not prove anything.
var ErrWrong = errors.New("the code or passkey is wrong, or was used before")

// Set is a person's factors.
type Set struct {
	TOTP     *TOTP     `json:"totp,omitempty"`
	Recovery [][]byte  `json:"recovery,omitempty"` // digests of codes that were not used
	Passkeys []Passkey `json:"passkeys,omitempty"`
}

// TOTP is an authenticator app (RFC 6238).
type TOTP struct {
	Secret  string    `json:"secret"` // base32
	Used    uint64    `json:"used"`   // the step of the last code that was taken
	Created time.Time `json:"created"`
}

const (
	period        = 30 // seconds of a step (RFC 6238 section 5.2)
	skew          = 1  // steps that clocks may differ
	recoveryCodes = 10
)

// Enrolment is what an authenticator app is given.
type Enrolment struct {
	Ceremony string // the token that confirms it, by the caller
	Secret   string // base32, to type in
	URL      string // otpauth://totp/...
	PNG      []byte // the URL as a QR code of 240 by 240 pixels
}

// Kinds are the kinds of factor there are in the set: "totp", "passkey", and beside one of them "recovery".
func (s *Set) Kinds() []string {
	var list []string
	if s.TOTP != nil {
		list = append(list, "totp")
	}
	if len(s.Passkeys) > 0 {
		list = append(list, "passkey")
	}
	if list != nil && len(s.Recovery) > 0 {
		list = append(list, "recovery")
	}
	return list
}

// Enrol makes a secret for an authenticator app, which shows it under the names of a service and a person.
func Enrol(service, name string) (Enrolment, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: service, AccountName: name, Period: period, SecretSize: 20})
	if err != nil {
		return Enrolment{}, fmt.Errorf("make a secret: %w", err)
	}
	code, err := key.Image(240, 240)
	if err != nil {
		return Enrolment{}, fmt.Errorf("draw a code: %w", err)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, code); err != nil {
		return Enrolment{}, fmt.Errorf("draw a code: %w", err)
	}
	return Enrolment{Secret: key.Secret(), URL: key.URL(), PNG: out.Bytes()}, nil
}

// SpendCode takes a code of the authenticator app: of now, or of a step before or after, and later than any that was taken
// before.
func (s *Set) SpendCode(code string, now time.Time) error {
	code = strings.Join(strings.Fields(code), "")
	if s.TOTP == nil || len(code) != 6 {
		return ErrWrong
	}
	at := uint64(now.Unix() / period)
	for step := at - skew; step <= at+skew; step++ {
		ok, err := hotp.ValidateCustom(code, step, s.TOTP.Secret, hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return ErrWrong
		}
		if ok && step > s.TOTP.Used {
			s.TOTP.Used = step
			return nil
		}
	}
	return ErrWrong
}

// Digest is what is kept of a recovery code; an HMAC, since codes are random.
type Digest func(code string) []byte

// Supply makes recovery codes where there are none, and returns them: 80 random bits each, in four groups. They can not be
// had again.
func (s *Set) Supply(digest Digest) (codes []string) {
	if len(s.Recovery) > 0 {
		return nil
	}
	for range recoveryCodes {
		var b [10]byte
		rand.Read(b[:]) // never fails
		t := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
		s.Recovery = append(s.Recovery, digest(t))
		codes = append(codes, t[:4]+"-"+t[4:8]+"-"+t[8:12]+"-"+t[12:])
	}
	return codes
}

// SpendRecovery takes a recovery code, each once.
func (s *Set) SpendRecovery(code string, digest Digest) error {
	sum := digest(strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(code)))
	i := slices.IndexFunc(s.Recovery, func(have []byte) bool { return hmac.Equal(have, sum) })
	if i < 0 {
		return ErrWrong
	}
	s.Recovery = slices.Delete(s.Recovery, i, i+1)
	return nil
}

// DropSince takes out what was added at a time or later, and all recovery codes, which may have been made anew.
func (s *Set) DropSince(at time.Time) {
	if s.TOTP != nil && !s.TOTP.Created.Before(at) {
		s.TOTP = nil
	}
	s.Passkeys = slices.DeleteFunc(s.Passkeys, func(k Passkey) bool { return !k.Created.Before(at) })
	s.Recovery = nil
}

// Tidy drops recovery codes that there is nothing to recover.
func (s *Set) Tidy() {
	if s.TOTP == nil && len(s.Passkeys) == 0 {
		s.Recovery = nil
	}
}
