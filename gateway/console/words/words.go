// Package words has every text of the console's pages in each of its languages: its main type is Words. A text is found by its
// key; a key without a text in a language is a defect that the tests find, since the catalogues are compared key by key.
package words

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

//go:embed en.json zh.json
var files embed.FS

// Words are the catalogues.
type Words struct {
	languages []*Language
	matcher   language.Matcher
}

// Language is one catalogue. It does not change.
type Language struct {
	Tag     string // as html's lang has it: "en", "zh-Hans"
	Code    string // as cookies and addresses have it: "en", "zh"
	Name    string // what it calls itself
	texts   map[string]string
	printer language.Tag
}

// Load reads the catalogues. The first language is the one of those who ask for none that there is.
func Load() (*Words, error) {
	w := &Words{}
	var tags []language.Tag
	for _, l := range []*Language{{Tag: "en", Code: "en", Name: "English"}, {Tag: "zh-Hans", Code: "zh", Name: "中文"}} {
		b, err := files.ReadFile(l.Code + ".json")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, &l.texts); err != nil {
			return nil, fmt.Errorf("read the texts in %s: %w", l.Name, err)
		}
		l.printer = language.Make(l.Tag)
		tags = append(tags, l.printer)
		w.languages = append(w.languages, l)
	}
	w.matcher = language.NewMatcher(tags)
	return w, nil
}

// Languages are all there are.
func (w *Words) Languages() []*Language { return w.languages }

// Find is the language with a code, or nil.
func (w *Words) Find(code string) *Language {
	i := slices.IndexFunc(w.languages, func(l *Language) bool { return l.Code == code })
	if i < 0 {
		return nil
	}
	return w.languages[i]
}

// Accepted is the language that suits an Accept-Language field best (RFC 9110 section 12.5.4).
func (w *Words) Accepted(field string) *Language {
	const longest = 200 // octets: nobody lists more, and reading costs
	if len(field) > longest {
		field = field[:longest]
	}
	tags, _, err := language.ParseAcceptLanguage(field)
	if err != nil {
		return w.languages[0]
	}
	_, i, _ := w.matcher.Match(tags...)
	return w.languages[i]
}

// Text is the text with that key, with arguments where it has verbs; numbers are written as the language writes them. A
// key that there is not is given back.
func (l *Language) Text(key string, arguments ...any) string {
	text, ok := l.texts[key]
	switch {
	case !ok:
		return key
	case len(arguments) == 0:
		return text
	}
	return message.NewPrinter(l.printer).Sprintf(text, arguments...)
}

// Has reports whether there is a text with that key.
func (l *Language) Has(key string) bool { _, ok := l.texts[key]; return ok }

// Keys are all keys, in order.
func (l *Language) Keys() []string { return slices.Sorted(maps.Keys(l.texts)) }

// Number writes a number as the language writes it, with at most so many decimals.
func (l *Language) Number(v float64, decimals int) string {
	p := message.NewPrinter(l.printer)
	if v == float64(int64(v)) {
		return p.Sprintf("%d", int64(v))
	}
	return p.Sprintf("%.*f", decimals, v)
}
