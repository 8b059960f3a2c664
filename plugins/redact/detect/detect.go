// Package detect finds personal data in text: its main type is Detector.
package detect

// Kind is a kind of personal data. The zero Kind is none.
type Kind uint8

// The kinds, in the order of their words.
const (
	Email Kind = iota + 1
	Phone
	Card
	IBAN
	ResidentID
	Secret
	KindCount // how many there are, none among them
)

// Name is the word for k in the configuration.
func (k Kind) Name() string {
	switch k {
	case Email:
		return "email"
	case Phone:
		return "phone"
	case Card:
		return "card"
	case IBAN:
		return "iban"
	case ResidentID:
		return "resident_id"
	case Secret:
		return "secret"
	}
	return ""
}

// Label is the word for k inside a placeholder.
func (k Kind) Label() string {
	switch k {
	case Email:
		return "EMAIL"
	case Phone:
		return "PHONE"
	case Card:
		return "CARD"
	case IBAN:
		return "IBAN"
	case ResidentID:
		return "RESIDENT_ID"
	case Secret:
		return "SECRET"
	}
	return ""
}

// Find is one value found in a text: the octets [Start, End) are of the given kind.
type Find struct {
	Start, End int
	Kind       Kind
}

// Detector finds personal data in text. It is conservative: every kind has a checksum, a known prefix or a shape that
// ordinary numbers and words seldom have, because a false find costs the model its meaning.
type Detector struct {
	Kinds  [KindCount]bool // which kinds to look for
	Allow  [][]byte        // lower case: values, and domains ("example.com" with those below it) that are no personal data
	groups [maxGroups]span
	// unended is the offset up to which the text holds no end of a private key that is not found yet.
	unended int
	// The text with what looks like ASCII written as ASCII, and how its offsets belong to the text's.
	folded []byte
	shifts []shift
}

type span struct{ start, end int }

// Classes of octets, to leave most of a text alone at one look-up an octet.
const (
	classLetter = 1 << iota // A-Z a-z
	classDigit
	classLocal  // what the local part of an email address may hold beside letters and digits
	classDomain // what a domain may hold beside letters and digits
	classToken  // what a secret may hold beside letters and digits: _ and -
	classStart  // at a word's start something may begin here: letters of IBANs and prefixes, digits, + ( -
)

//nolint:gochecknoglobals // a constant in all but syntax
var classes = func() (c [256]uint8) {
	for b := 'a'; b <= 'z'; b++ {
		c[b] |= classLetter | classStart
		c[b-32] |= classLetter | classStart
	}
	for b := '0'; b <= '9'; b++ {
		c[b] |= classDigit | classStart
	}
	for _, b := range "._%+-'" {
		c[b] |= classLocal
	}
	for _, b := range ".-" {
		c[b] |= classDomain
	}
	for _, b := range "_-" {
		c[b] |= classToken
	}
	for _, b := range "+(-" {
		c[b] |= classStart
	}
	return c
}()

func isDigit(b byte) bool { return b-'0' < 10 }
func isAlnum(b byte) bool { return classes[b]&(classLetter|classDigit) != 0 }
func lower(b byte) byte {
	if b-'A' < 26 {
		return b + 32
	}
	return b
}

// Scan appends to finds what it finds in text, in order and without overlap. Offsets have base added.
func (d *Detector) Scan(finds []Find, text []byte, base int) []Find {
	folded, ok := d.fold(text)
	if !ok {
		return d.scan(finds, text, base)
	}
	// Folding may also hide something, such as a number behind a dash: what either way finds is found.
	known := len(finds)
	finds = d.scan(finds, text, 0)
	raw := len(finds)
	finds = d.scan(finds, folded, 0)
	d.unfold(finds[raw:])
	return merge(finds, known, base)
}

// scan is Scan of a text as it is.
func (d *Detector) scan(finds []Find, text []byte, base int) []Find {
	d.unended = 0
	floor := 0 // the end of the last find: nothing begins before it
	word := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		class := classes[c]
		before := word
		word = class&(classLetter|classDigit) != 0
		if class&classStart == 0 && c != '@' {
			continue
		}
		var f Find
		switch {
		case c == '@':
			f = d.email(text, floor, i)
		case before:
			continue
		case class&classLetter != 0:
			f = d.word(text, i)
		default:
			var skip int
			f, skip = d.number(text, i)
			if f.Kind == 0 && skip > i+1 { // a whole run of digits that is nothing
				i = skip - 1
				word = isAlnum(text[i])
				continue
			}
		}
		if f.Kind == 0 || f.Start < floor || d.allowed(f.Kind, text[f.Start:f.End]) {
			continue
		}
		finds = append(finds, Find{Start: f.Start + base, End: f.End + base, Kind: f.Kind})
		floor = f.End
		i = f.End - 1
		word = isAlnum(text[i])
	}
	return finds
}

// allowed reports whether the operator exempted value.
func (d *Detector) allowed(kind Kind, value []byte) bool {
	for _, a := range d.Allow {
		if equalFold(a, value) {
			return true
		}
		switch kind {
		case Email:
			at := len(value) - len(a)
			if at > 0 && (a[0] == '@' || value[at-1] == '@' || value[at-1] == '.') && equalFold(a, value[at:]) {
				return true
			}
		case Phone, Card, IBAN, ResidentID: // the same number in another notation
			if sameNumber(a, value) {
				return true
			}
		}
	}
	return false
}

func sameNumber(a, b []byte) bool {
	i, j := 0, 0
	for {
		for i < len(a) && !isAlnum(a[i]) {
			i++
		}
		for j < len(b) && !isAlnum(b[j]) {
			j++
		}
		if i == len(a) || j == len(b) {
			return i == len(a) && j == len(b)
		}
		if lower(a[i]) != lower(b[j]) {
			return false
		}
		i, j = i+1, j+1
	}
}

// equalFold compares without ASCII case; a is lower case.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != lower(b[i]) {
			return false
		}
	}
	return true
}

// Bounds of email addresses: RFC 5321 section 4.5.3.1 allows 64 and 255 octets; addresses made for bounces are longer.
const (
	maxLocal  = 128
	maxDomain = 255
)

// email looks at both sides of the @ at i. A password in a URL is found here too, because it stands before an @.
func (d *Detector) email(text []byte, floor, i int) Find {
	if i+1 == len(text) {
		return Find{}
	}
	start := i
	for start > floor && i-start < maxLocal && (isAlnum(text[start-1]) || classes[text[start-1]]&classLocal != 0) {
		start--
	}
	if user, password := userinfo(text, floor, i); user {
		if password.Kind != 0 && d.Kinds[Secret] {
			return password
		}
		return Find{}
	}
	// A backslash before means an escape sequence of some programming language: its letter is not part of the address.
	if start > floor && text[start-1] == '\\' && start < i && (text[start] == 'n' || text[start] == 't' || text[start] == 'r') {
		start++
	}
	for start < i && (text[start] == '.' || text[start] == '-' || text[start] == '\'' || text[start] == '%') {
		start++
	}
	if start == i || text[i-1] == '.' || !d.Kinds[Email] {
		return Find{}
	}
	end, label, labels, numeric := i+1, i+1, 0, 0
	for ; end <= len(text) && end-i <= maxDomain; end++ {
		if end < len(text) && (isAlnum(text[end]) || text[end] == '-') {
			continue
		}
		if end == label {
			end-- // the dot before was a full stop
			break
		}
		labels++
		if labels <= 2 && digitsOnly(text[label:end]) {
			numeric++
		}
		if end == len(text) || text[end] != '.' {
			break
		}
		label = end + 1
	}
	end = min(end, len(text))
	for end > i+1 && (text[end-1] == '-' || text[end-1] == '.') {
		end--
	}
	top := end
	for top > i+1 && text[top-1] != '.' {
		top--
	}
	switch {
	case top == i+1, text[i+1] == '-': // no dot
		return Find{}
	case numeric == 2: // a version: name@1.2.beta
		return Find{}
	case !topLevel(text[top:end]), pictureScale(text[i+1:]):
		return Find{}
	case string(text[start:i]) == "git" && end < len(text) && text[end] == ':': // an address of a repository
		return Find{}
	}
	return Find{start, end, Email}
}

// topLevel reports whether label could be a top-level domain: letters, or an internationalised one.
func topLevel(label []byte) bool {
	if len(label) < 2 || len(label) > 24 {
		return false
	}
	if len(label) > 4 && string(label[:4]) == "xn--" {
		return true
	}
	for _, b := range label {
		if classes[b]&classLetter == 0 {
			return false
		}
	}
	return true
}

// pictureScale reports names such as logo@2x.png.
func pictureScale(domain []byte) bool {
	return len(domain) > 2 && isDigit(domain[0]) && domain[1] == 'x' && domain[2] == '.'
}

func digitsOnly(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return len(b) > 0
}

// userinfo reports that the @ at i ends a URL's scheme://user@ or scheme://user:password@, and finds the password.
func userinfo(text []byte, floor, i int) (user bool, password Find) {
	colon := i
	for k := i - 1; k >= floor && i-k <= 256; k-- {
		switch c := text[k]; c {
		case '"', '\'', '<', '>', '\\', '@', '?', '#':
			return false, Find{}
		case ':':
			colon = k
		case '/':
			if k-2 < floor || text[k-1] != '/' || text[k-2] != ':' {
				return false, Find{}
			}
			if colon+1 < i {
				password = Find{colon + 1, i, Secret}
			}
			return true, password
		default:
			if c <= ' ' || c >= 0x7f {
				return false, Find{}
			}
		}
	}
	return false, Find{}
}

// word looks at the word that begins at i for what begins with letters.
func (d *Detector) word(text []byte, i int) Find {
	if d.Kinds[Secret] {
		if end := secretAt(text, i); end > 0 {
			return Find{i, end, Secret}
		}
	}
	if d.Kinds[IBAN] && i+4 < len(text) && isDigit(text[i+2]) && isDigit(text[i+3]) {
		if end := ibanAt(text, i); end > 0 {
			return Find{i, end, IBAN}
		}
	}
	return Find{}
}

// ibanLengths are the lengths by country (ISO 13616 registry), four octets each: country, two digits.
const ibanLengths = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27" +
	"GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19" +
	"MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24" +
	"TR26UA29VA22VG24XK20YE30"

// ibanAt returns the end of the account number that begins at i, or 0: country, length and check digits (ISO 7064
// MOD 97-10) are right, and it is written in one or in groups of four.
func ibanAt(text []byte, i int) int {
	a, b := lower(text[i])-32, lower(text[i+1])-32
	length := 0
	for k := 0; k < len(ibanLengths); k += 4 {
		if ibanLengths[k] == a && ibanLengths[k+1] == b {
			length = int(ibanLengths[k+2]-'0')*10 + int(ibanLengths[k+3]-'0')
			break
		}
	}
	if length == 0 {
		return 0
	}
	var head, rest uint32 // the four first octets count last
	n, end := 0, i
	for ; end < len(text) && n < length; end++ {
		c := text[end]
		if (c == ' ' || c == '-') && n%4 == 0 && n > 0 && text[end-1] != ' ' && text[end-1] != '-' {
			continue
		}
		if !isAlnum(c) {
			return 0
		}
		into := &rest
		if n < 4 {
			into = &head
		}
		if isDigit(c) {
			*into = (*into*10 + uint32(c-'0')) % 97
		} else {
			*into = (*into*100 + uint32(lower(c)-'a') + 10) % 97
		}
		n++
	}
	if n < length || end < len(text) && (isAlnum(text[end]) || text[end] == '_') {
		return 0
	}
	// head is two letters and two digits: six digits once the letters are numbers.
	if (rest*(1000000%97)+head)%97 != 1 {
		return 0
	}
	return end
}
