package main

import (
	"unicode"
	"unicode/utf8"
)

// folder writes a text as words of plain lower-case letters and digits, one blank between them: what a reader takes it
// for, without what a filter is talked around with. Letters of other scripts that look like Latin ones, full-width and
// mathematical letters, digits in the place of letters inside a word, hidden tag characters, and characters that take no
// room are all read as what they look like; punctuation ends a word.
type folder struct {
	plain [0x530]byte // by character: the plain letter it looks like
	out   []byte
}

func newFolder() *folder {
	f := new(folder)
	for i := 0; i < len(lookalikes); {
		r, n := utf8.DecodeRuneInString(lookalikes[i:])
		f.plain[r] = lookalikes[i+n+1]
		i += n + 3
	}
	return f
}

// fold returns the folded text, good until the next call.
func (f *folder) fold(text []byte) []byte {
	dst := f.out[:0]
	word := 0 // where the current word begins
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
		}
		i += n
		if r >= 0xe0020 && r <= 0xe007e { // tags: ASCII that is not shown
			r -= 0xe0000
		}
		l := f.looks(r)
		switch {
		case l > 0:
			dst = append(dst, byte(l))
		case l == nothing:
		case r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			dst = append(dst, text[i-n:i]...)
		case len(dst) > word && i < len(text) && (text[i]|0x20-'a' < 26 || text[i] == '$') && (r == '@' || r == '$' || r == '!' || r == '\''): // inside a word
			switch r {
			case '@':
				dst = append(dst, 'a')
			case '$':
				dst = append(dst, 's')
			case '!':
				dst = append(dst, 'i')
			}
		case len(dst) > word:
			leet(dst[word:])
			dst = append(dst, ' ')
			word = len(dst)
		}
	}
	leet(dst[word:])
	f.out = dst
	return dst
}

// leet reads digits between letters as the letters they stand for: ign0re, pr3vious. A number stays one.
func leet(word []byte) {
	letters := 0
	for _, c := range word {
		if c-'a' < 26 {
			letters++
		}
	}
	if 2*letters < len(word) || letters == len(word) {
		return
	}
	for i, c := range word {
		switch c {
		case '0':
			word[i] = 'o'
		case '1':
			word[i] = 'i'
		case '3':
			word[i] = 'e'
		case '4':
			word[i] = 'a'
		case '5':
			word[i] = 's'
		case '7':
			word[i] = 't'
		}
	}
}

// lookalikes are letters of Cyrillic and Greek, and of Latin with marks, by the plain letter they look like.
const lookalikes = "а=a е=e о=o р=p с=c у=y х=x і=i ї=i ј=j ѕ=s һ=h ԁ=d ԛ=q ԝ=w к=k м=m т=t в=b н=h " +
	"А=a В=b Е=e К=k М=m Н=h О=o Р=p С=c Т=t У=y Х=x І=i Ј=j Ѕ=s " +
	"α=a β=b ε=e ι=i κ=k ν=v ο=o ρ=p τ=t υ=u χ=x ω=w Α=a Β=b Ε=e Ζ=z Η=h Ι=i Κ=k Μ=m Ν=n Ο=o Ρ=p Τ=t Υ=y Χ=x " +
	"à=a á=a â=a ã=a ä=a å=a ā=a ç=c è=e é=e ê=e ë=e ē=e ì=i í=i î=i ï=i ī=i ı=i ñ=n ò=o ó=o ô=o õ=o ö=o ø=o ō=o ù=u ú=u û=u ü=u ū=u ý=y ÿ=y š=s ž=z ł=l " +
	"À=a Á=a Â=a Ã=a Ä=a Å=a Ç=c È=e É=e Ê=e Ë=e Ì=i Í=i Î=i Ï=i Ñ=n Ò=o Ó=o Ô=o Õ=o Ö=o Ø=o Ù=u Ú=u Û=u Ü=u Ý=y "

// nothing is what a character that takes no room looks like.
const nothing = -1

// looks is the plain letter or digit that r looks like; 0 for anything else.
func (f *folder) looks(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		return r
	case r >= 'A' && r <= 'Z':
		return r + 32
	case r < 0xc0:
		if r == 0xad {
			return nothing
		}
		return 0
	case r >= 0xff10 && r <= 0xff19: // of full width
		return r - 0xff10 + '0'
	case r >= 0xff21 && r <= 0xff3a:
		return r - 0xff21 + 'a'
	case r >= 0xff41 && r <= 0xff5a:
		return r - 0xff41 + 'a'
	case r >= 0x1d400 && r <= 0x1d6a3: // of mathematics: alphabets of 26 capital and 26 small letters
		return (r-0x1d400)%26 + 'a'
	case r >= 0x1d7ce && r <= 0x1d7ff:
		return (r-0x1d7ce)%10 + '0'
	case r >= 0x24b6 && r <= 0x24e9: // in circles
		return (r-0x24b6)%26 + 'a'
	case r >= 0x300 && r <= 0x36f, r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f,
		r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f:
		return nothing
	case r < 0x530:
		return rune(f.plain[r])
	}
	return 0
}
