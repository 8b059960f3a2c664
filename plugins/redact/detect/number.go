package detect

// maxGroups bounds how many groups of digits are looked at together; the longest notation in use has eight.
const maxGroups = 16

// number looks at the run of digits, with the separators people write between them, that begins at i. Without a find
// it returns where the search may go on.
func (d *Detector) number(text []byte, i int) (f Find, next int) {
	if text[i] == '-' {
		if d.Kinds[Secret] {
			if end := d.pem(text, i); end > 0 {
				return Find{i, end, Secret}, end
			}
		}
		return Find{}, i + 1
	}
	first := i
	for first < len(text) && first-i < 3 && (text[first] == '+' || text[first] == '(') {
		first++
	}
	if first-i == 3 || first == len(text) || !isDigit(text[first]) {
		return Find{}, i + 1
	}
	if i > 0 && (text[i-1] == '_' || text[i-1] == '+' || text[i-1] == '%') ||
		i > 1 && (text[i-1] == '.' || text[i-1] == ',') && isDigit(text[i-2]) {
		for first < len(text) && isDigit(text[first]) { // the fraction of a number, or part of a name
			first++
		}
		return Find{}, first
	}
	groups := d.run(text, first)
	end := groups[len(groups)-1].end
	if len(groups) == 1 && end-first < 7 {
		return Find{}, end
	}
	for g := range groups {
		start := groups[g].start
		if g == 0 {
			start = i
		}
		if f = d.numberFrom(text, start, groups[g:]); f.Kind != 0 {
			return f, f.End
		}
		if g+1 < len(groups) && text[groups[g+1].start-1] == '+' {
			return Find{}, groups[g+1].start - 1
		}
	}
	return Find{}, end
}

// run collects the groups of digits that begin at i. Between two groups stand at most three separators.
func (d *Detector) run(text []byte, i int) []span {
	n := 0
	for n < maxGroups {
		g := span{start: i}
		for i < len(text) && isDigit(text[i]) {
			i++
		}
		g.end = i
		d.groups[n] = g
		n++
		gap := 0
		for i+gap < len(text) && gap < 3 && separator(text[i+gap]) {
			gap++
		}
		if gap == 0 || i+gap == len(text) || !isDigit(text[i+gap]) {
			break
		}
		i += gap
	}
	return d.groups[:n]
}

func separator(b byte) bool {
	switch b {
	case ' ', '-', '.', '(', ')', '/':
		return true
	}
	return false
}

// numberFrom looks for something that begins with the first of groups, the most telling kind first.
func (d *Detector) numberFrom(text []byte, start int, groups []span) Find {
	if at := groups[0].start; at > 1 && text[at-1] == '.' && isDigit(text[at-2]) {
		return Find{} // a fraction
	}
	size := groups[0].end - groups[0].start // most runs of digits are left by their first group
	if d.Kinds[ResidentID] && (size == 6 || size >= 17) {
		if end := residentIDAt(text, groups); end > 0 {
			return Find{groups[0].start, end, ResidentID}
		}
	}
	if d.Kinds[Card] && (size == 4 || size >= 12) {
		if end := cardAt(text, groups); end > 0 {
			return Find{groups[0].start, end, Card}
		}
	}
	if d.Kinds[Phone] {
		if end := phoneAt(text, start, groups); end > 0 {
			return Find{start, end, Phone}
		}
	}
	return Find{}
}

// closed reports whether a number may end at end: no letter, digit or fraction follows.
func closed(text []byte, end int) bool {
	if end == len(text) {
		return true
	}
	c := text[end]
	if isAlnum(c) || c == '_' || c == '%' {
		return false
	}
	return (c != '.' && c != ',' && c != ':') || end+1 == len(text) || !isDigit(text[end+1])
}

// residentIDAt returns the end of a Chinese resident identity number (GB 11643), or 0: 17 digits and a check character;
// the region's province exists, the date of birth exists, the check character (ISO 7064 MOD 11-2) is right. It may be
// written in one or as region, date, rest.
func residentIDAt(text []byte, groups []span) int {
	var digits [17]byte
	n, g := 0, 0
	for ; g < len(groups) && n < 17; g++ {
		if g > 0 && (g > 2 || groups[g].start-groups[g-1].end != 1 || n != 6 && n != 14) {
			return 0
		}
		for k := groups[g].start; k < groups[g].end; k++ {
			if n == 17 { // the check character is this digit
				break
			}
			digits[n] = text[k] - '0'
			n++
		}
	}
	if n < 17 {
		return 0
	}
	last := groups[g-1]
	consumed := 17
	for k := range g - 1 {
		consumed -= groups[k].end - groups[k].start
	}
	check := last.start + consumed
	if check >= len(text) || check > last.end {
		return 0
	}
	province, year := int(digits[0])*10+int(digits[1]), 0
	for _, c := range digits[6:10] {
		year = year*10 + int(c)
	}
	if !provinceExists(province) || !dateExists(year, int(digits[10])*10+int(digits[11]), int(digits[12])*10+int(digits[13])) {
		return 0
	}
	sum := 0
	for k, c := range digits {
		sum += int(c) * ((1 << (17 - k)) % 11)
	}
	if c := text[check]; c != "10X98765432"[sum%11] && (c != 'x' || sum%11 != 2) {
		return 0
	}
	if !closed(text, check+1) {
		return 0
	}
	return check + 1
}

func provinceExists(p int) bool {
	switch p / 10 {
	case 1:
		return p >= 11 && p <= 15
	case 2:
		return p >= 21 && p <= 23
	case 3:
		return p >= 31 && p <= 37
	case 4:
		return p >= 41 && p <= 46
	case 5:
		return p >= 50 && p <= 54
	case 6:
		return p >= 61 && p <= 65
	case 7:
		return p == 71
	case 8:
		return p >= 81 && p <= 83
	case 9:
		return p == 91
	}
	return false
}

func dateExists(year, month, day int) bool {
	if year < 1900 || year > 2099 || month < 1 || month > 12 || day < 1 {
		return false
	}
	days := 31
	switch month {
	case 4, 6, 9, 11:
		days = 30
	case 2:
		days = 28
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			days = 29
		}
	}
	return day <= days
}

// cardAt returns the end of a payment card number (ISO/IEC 7812), or 0: a known network's prefix and length, the Luhn
// check digit, and the grouping cards are printed with, or none.
func cardAt(text []byte, groups []span) int {
	var digits [19]byte
	n, best := 0, 0
	var sep byte
	for g, group := range groups {
		if g > 0 {
			s := text[groups[g-1].end]
			if group.start-groups[g-1].end != 1 || s != ' ' && s != '-' || sep != 0 && s != sep {
				break
			}
			sep = s
		}
		size := group.end - group.start
		if n+size > len(digits) {
			break
		}
		for k := group.start; k < group.end; k++ {
			digits[n] = text[k] - '0'
			n++
		}
		if n >= 12 && printed(groups[:g+1]) && network(digits[:n]) && luhn(digits[:n]) && closed(text, group.end) {
			best = group.end // the longest wins
		}
	}
	return best
}

// printed reports whether groups have the sizes cards are written with: one group, fours with a shorter rest, 4-6-5
// and 4-6-4.
func printed(groups []span) bool {
	size := func(g int) int { return groups[g].end - groups[g].start }
	if len(groups) == 1 {
		return true
	}
	if len(groups) == 3 && size(0) == 4 && size(1) == 6 {
		return size(2) == 5 || size(2) == 4
	}
	for g := range len(groups) - 1 {
		if size(g) != 4 {
			return false
		}
	}
	return len(groups) >= 4 && size(len(groups)-1) <= 4
}

// network reports whether a card network issues numbers of this beginning and length.
func network(d []byte) bool {
	four := int(d[0])*1000 + int(d[1])*100 + int(d[2])*10 + int(d[3])
	n := len(d)
	switch {
	case d[0] == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case four/100 >= 51 && four/100 <= 55, four >= 2221 && four <= 2720: // Mastercard
		return n == 16
	case four/100 == 34, four/100 == 37: // American Express
		return n == 15
	case four == 6011, four/10 >= 644 && four/10 <= 649, four/100 == 65: // Discover
		return n >= 16
	case four >= 3528 && four <= 3589: // JCB
		return n >= 16
	case four/10 >= 300 && four/10 <= 305, four/100 == 36, four/100 == 38, four/100 == 39: // Diners Club
		return n >= 14
	case four/100 == 62: // UnionPay
		return n >= 16
	case four >= 2200 && four <= 2204: // Mir
		return n >= 16
	case four == 5018, four == 5020, four == 5038, four == 5893, four == 6304, four == 6759, four >= 6761 && four <= 6763: // Maestro
		return true
	}
	return false
}

func luhn(d []byte) bool {
	sum := 0
	for i, c := range d {
		v := int(c)
		if (len(d)-i)%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// phoneAt returns the end of a telephone number, or 0: international with + or 00, or one of the national notations
// that nothing else is written in. start is where + or ( stand before the first group.
func phoneAt(text []byte, start int, groups []span) int {
	plus := text[start] == '+' || start+1 < len(text) && text[start] == '(' && text[start+1] == '+'
	inner := false // digits stand before: this may be the end of a longer number
	if start > 0 && !plus {
		switch text[start-1] {
		case '.', '-', '#', ')':
			return 0
		case '/':
			if start == 1 || !isDigit(text[start-2]) {
				return 0 // part of a path
			}
		case ' ':
			inner = start > 1 && isDigit(text[start-2])
		}
		if inner && len(groups) > 1 && groups[0].end-groups[0].start < 11 && spaced(text, groups[:2]) {
			return 0
		}
	}
	var digits [16]byte
	total, best := 0, 0
	for g, group := range groups {
		if g > 0 && !phoneGap(text[groups[g-1].end:group.start]) {
			break
		}
		if size := group.end - group.start; total+size > len(digits) {
			break
		}
		for k := group.start; k < group.end; k++ {
			digits[total] = text[k]
			total++
		}
		if total < 7 || !closed(text, group.end) || date(text, groups[:g+1]) {
			continue
		}
		number, seen := digits[:total], groups[:g+1]
		switch {
		case inner && spaced(text, seen):
		case plus:
			if international(number) {
				best = group.end
			}
		case total > 9 && string(number[:2]) == "00" && g > 0 && groups[0].end-groups[0].start > 2:
			if international(number[2:]) {
				best = group.end
			}
		case national(text, start, number, seen), total >= 9 && total <= 15 && number[0] != '-' && cue(text, start):
			best = group.end
		}
	}
	return best
}

// phoneGap reports whether people write gap between two groups of one number.
func phoneGap(gap []byte) bool {
	switch string(gap) {
	case " ", "-", ".", "/", ") ", ")", " (", "(", ")-", " - ":
		return true
	}
	return false
}

// date reports whether groups begin like a date: a year, then month and day, or the other way round.
func date(text []byte, groups []span) bool {
	if len(groups) < 3 {
		return false
	}
	size := func(g int) int { return groups[g].end - groups[g].start }
	year := func(g int) bool {
		b := text[groups[g].start:groups[g].end]
		return len(b) == 4 && (b[0] == '1' && b[1] == '9' || b[0] == '2' && b[1] == '0')
	}
	return size(1) <= 2 && (year(0) && size(2) <= 2 || size(0) <= 2 && year(2))
}

// international reports whether number, without + or 00, begins with a country code and has a length used there.
func international(number []byte) bool {
	n := len(number)
	if n < 8 || n > 15 {
		return false
	}
	switch number[0] {
	case '0':
		return false
	case '1':
		return n == 11 && number[1] >= '2' && number[4] >= '2'
	case '7':
		return n == 11
	}
	two := int(number[0]-'0')*10 + int(number[1]-'0')
	switch two {
	case 86:
		return n == 13 && chineseMobile(number[2:]) || number[2] != '1' && n >= 11 && n <= 13 || number[2] == '1' && n == 12
	case 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58,
		60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 90, 91, 92, 93, 94, 95, 98:
		return n >= 9
	case 28, 83, 89:
		return false // not assigned
	}
	return n >= 10 || n >= 9 && two != 80 && two != 87 && two != 88 // three digits of country code
}

// chineseMobile reports whether number is eleven digits of an assigned mobile range.
func chineseMobile(number []byte) bool {
	if len(number) != 11 || number[0] != '1' {
		return false
	}
	switch number[1] {
	case '3', '8', '9':
		return true
	case '4':
		return number[2] >= '5'
	case '5':
		return number[2] != '4'
	case '6':
		return number[2] == '2' || number[2] >= '5' && number[2] <= '7'
	case '7':
		return number[2] != '9'
	}
	return false
}

// national reports the national notations that are told from other numbers by their shape alone.
func national(text []byte, start int, number []byte, groups []span) bool {
	n := len(number)
	size := func(g int) int { return groups[g].end - groups[g].start }
	spaces := spaced(text, groups)
	switch {
	case chineseMobile(number):
		return len(groups) == 1 || len(groups) == 3 && size(0) == 3 && size(1) == 4
	case number[0] == '0' && number[1] >= '1':
		return trunk(text, number, groups, spaces)
	}
	// North America: (415) 555-2671, 415-555-2671, 415.555.2671, 1-415-555-2671. Nothing but spaces could be a table.
	if n == 11 && number[0] == '1' && len(groups) == 4 && size(0) == 1 {
		number, groups, n = number[1:], groups[1:], 10
	}
	if n != 10 || len(groups) != 3 || number[0] < '2' || number[3] < '2' {
		return false
	}
	return groups[0].end-groups[0].start == 3 && groups[1].end-groups[1].start == 3 && (!spaces || text[start] == '(')
}

// spaced reports that there is nothing but spaces between several groups.
func spaced(text []byte, groups []span) bool {
	for g := 1; g < len(groups); g++ {
		if string(text[groups[g-1].end:groups[g].start]) != " " {
			return false
		}
	}
	return len(groups) > 1
}

// trunk reports notations that begin with the trunk prefix 0, as most of Europe and Asia have: an area or mobile code,
// then the number in one to four groups; and the French pairs.
func trunk(text, number []byte, groups []span, spaces bool) bool {
	n := len(number)
	size := func(g int) int { return groups[g].end - groups[g].start }
	if len(groups) == 1 {
		return n == 11 && number[1] == '7' && number[2] >= '1' // a British mobile
	}
	pairs := true
	for g := range groups {
		pairs = pairs && size(g) == 2
	}
	if pairs {
		return n == 10 && (number[1] == '6' || number[1] == '7')
	}
	if size(0) < 2 || size(0) > 5 || n < 10 || n > 12 || len(groups) > 5 {
		return false
	}
	long := false // a group of at least four: lists of small numbers have none
	for g := 1; g < len(groups); g++ {
		if size(g) < 2 || g > 1 && !spaces && size(g) > 4 && len(groups) > 3 {
			return false
		}
		long = long || size(g) >= 4
	}
	if string(text[groups[0].end:groups[1].start]) == "." {
		return false // versions and section numbers
	}
	return long || len(groups) == 4 && size(0) >= 4 // 07911 123 456, 0171 123 45 67
}

// cue reports whether a word just before start says that a telephone number follows.
func cue(text []byte, start int) bool {
	from := start // back to the last digit or line end: a cue belongs to the number right behind it
	for from > 0 && start-from < 24 && !isDigit(text[from-1]) && text[from-1] != '\n' && text[from-1] != ';' {
		from--
	}
	if start-from < 3 {
		return false
	}
	before := text[from:start]
	for i := range before {
		if i > 0 && isAlnum(before[i-1]) {
			continue
		}
		for _, w := range [...]string{"phone", "tel", "mobile", "cell", "fax", "whatsapp", "sms", "电话", "手机", "联系方式"} {
			if len(before)-i < len(w) || !equalFold([]byte(w), before[i:i+len(w)]) {
				continue
			}
			after := before[i+len(w):]
			if len(after) > 0 && isAlnum(after[0]) && w != "phone" && w != "tel" {
				continue
			}
			if cueTail(after) {
				return true
			}
		}
	}
	return false
}

// cueTail reports whether what stands between the word and the number belongs to it: punctuation and few letters.
func cueTail(b []byte) bool {
	for _, c := range b {
		if c == '.' && len(b) > 2 || c == '\n' || c == ';' || isDigit(c) {
			return false
		}
	}
	return len(b) <= 14
}
