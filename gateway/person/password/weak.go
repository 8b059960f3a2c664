package password

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a password, in characters.
const (
	MinLength = 10
	MaxLength = 128
)

// Weakness is why a password is refused, as a word that pages translate.
type Weakness string

// What is refused.
const (
	TooShort  Weakness = "short"
	TooLong   Weakness = "long"
	TooCommon Weakness = "common"   // among the first that are tried
	Personal  Weakness = "personal" // the person's address, name, or the service's name
	Unusable  Weakness = "unusable" // not text, or with control characters
)

// Error says what is wrong; WeaknessOf gives the word back.
func (w Weakness) Error() string {
	switch w {
	case TooShort:
		return fmt.Sprintf("password is shorter than %d characters", MinLength)
	case TooLong:
		return fmt.Sprintf("password is longer than %d characters", MaxLength)
	case TooCommon:
		return "password is one of those that are guessed first"
	case Personal:
		return "password is your own address or name"
	}
	return "password has characters that can not be typed"
}

// WeaknessOf finds the weakness in an error; "" without one.
func WeaknessOf(err error) Weakness {
	w, _ := errors.AsType[Weakness](err)
	return w
}

// Check refuses a password that is too short, too long, among the commonest, or made of what is known of the person:
// the e-mail address, the name, the service's name. least is the fewest characters, at least MinLength. It returns a
// Weakness or nil.
func Check(password string, least int, known ...string) error {
	p := normal(password)
	n := utf8.RuneCountInString(p)
	switch {
	case !utf8.ValidString(password) || strings.ContainsFunc(p, unicode.IsControl):
		return Unusable
	case n < max(least, MinLength):
		return TooShort
	case n > MaxLength || len(password) > 8*MaxLength:
		return TooLong
	}
	low := strings.ToLower(p)
	for _, k := range known {
		if personal(low, strings.ToLower(normal(strings.TrimSpace(k)))) {
			return Personal
		}
	}
	if common(low) {
		return TooCommon
	}
	return nil
}

// personal reports whether a password is little more than something known: the known text, one half of an address, or
// one of them with up to four more characters.
func personal(password, known string) bool {
	parts := []string{known}
	if local, domain, ok := strings.Cut(known, "@"); ok {
		parts = append(parts, local, domain)
	}
	return slices.ContainsFunc(parts, func(part string) bool {
		if utf8.RuneCountInString(part) < 4 {
			return false
		}
		rest := strings.ReplaceAll(password, part, "")
		return rest != password && utf8.RuneCountInString(rest) <= 4
	})
}

// common reports whether a password is among those that lists of guesses begin with. They all are of a few kinds, which
// are told here by rule rather than by a list: one character or a short unit over and over, a run of the alphabet or the
// keyboard, and a common word with figures around it.
func common(low string) bool {
	core := strings.Trim(low, "0123456789!?.,#*-_ ")
	for _, text := range []string{low, letters(low), letters(core), letters(unleet(core)), letters(unleet(low))} {
		if text != "" && (repeats(text) || runs(text) || made(text)) {
			return true
		}
	}
	return false
}

// letters is a text without what is neither a letter nor a figure.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

// unleet undoes the usual replacements of letters.
func unleet(s string) string {
	return strings.NewReplacer("@", "a", "4", "a", "3", "e", "1", "i", "!", "i", "0", "o", "$", "s", "5", "s", "7", "t").Replace(s)
}

// repeats reports whether a text is one unit of at most four characters over and over, or two units of any length.
func repeats(s string) bool {
	r := []rune(s)
	for unit := 1; unit <= len(r)/2; unit++ {
		if unit > 4 && unit*2 != len(r) {
			continue
		}
		same := true
		for i := unit; i < len(r) && same; i++ {
			same = r[i] == r[i-unit]
		}
		if same && (unit <= 4 || made(string(r[:unit])) || runs(string(r[:unit]))) {
			return true
		}
	}
	return false
}

// rows are what a run goes along, forwards or backwards.
const rows = "abcdefghijklmnopqrstuvwxyz 0123456789012345678909 qwertyuiop[] asdfghjkl;' zxcvbnm,./ 1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik qazwsxedcrfvtgbyhnujmikolp q1w2e3r4t5y6u7i8o9p0 1q2w3e4r5t6y7u8i9o0p qwertyuiopasdfghjklzxcvbnm qwertzuiopasdfghjklyxcvbnm azertyuiopqsdfghjklmwxcvbn"

// runs reports whether a text is one to three runs of a row, each of at least three characters.
func runs(s string) bool {
	back := []rune(rows)
	slices.Reverse(back)
	both := rows + " " + string(back)
	for range 3 {
		n := len(s)
		for n >= 3 && (!strings.Contains(both, s[:n]) || strings.Contains(s[:n], " ")) {
			n--
		}
		if n < 3 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
	}
	return false
}

// words are what most passwords of most people are made of.
var words = strings.Fields(`
	password passwort motdepasse contrasena senha parola wachtwoord mima woaini woaiwojia pass passwd passcode
	qwerty qwertz azerty abc abcd abcde abcdef asdf asdfgh zxcvbn qazwsx
	admin administrator root user test tester testing guest login access system server manager master default
	welcome hello letmein changeme change secret private security computer internet google facebook samsung
	love iloveyou loveyou sunshine princess angel baby flower butterfly summer winter spring autumn
	football baseball basketball soccer hockey liverpool chelsea arsenal barcelona superman batman spiderman
	starwars pokemon naruto minecraft monkey dragon tiger shadow killer hunter ranger cookie cheese chocolate
	michael jordan jessica ashley daniel charlie thomas george andrew robert jennifer michelle matthew
	whatever freedom trustno trustnoi mustang ferrari corvette harley london america canada india china
	january february march april june july august september october november december
	monday tuesday wednesday thursday friday saturday sunday
	api apikey token gateway postern my the me you is and your new old
	one two three first super good god jesus happy lucky money life world star blue red black white green orange`)

// made reports whether a text is at most four common words with figures between and around them, or a few figures alone.
func made(s string) bool {
	if strings.Trim(s, "0123456789") == "" {
		return len(s) <= 14 // a date, a telephone number
	}
	return spelled(s, 4)
}

// spelled reports whether a text is at most n common words; figures between them do not count.
func spelled(s string, n int) bool {
	if s = strings.TrimLeft(s, "0123456789"); s == "" {
		return true
	}
	if n == 0 {
		return false
	}
	for _, w := range words {
		if rest, ok := strings.CutPrefix(s, w); ok && spelled(rest, n-1) {
			return true
		}
	}
	return false
}
