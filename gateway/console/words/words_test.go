package words

import (
	"regexp"
	"slices"
	"strconv"
	"testing"
)

func TestCatalogues(t *testing.T) {
	t.Parallel()
	w, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`%(?:\[(\d)\])?([a-z])`)
	verbs := func(text string) (list []string) { // "1s": the first value is a text; languages have them in orders of their own
		for i, m := range verb.FindAllStringSubmatch(text, -1) {
			if m[1] == "" {
				m[1] = strconv.Itoa(i + 1)
			}
			list = append(list, m[1]+m[2])
		}
		slices.Sort(list)
		return list
	}
	first := w.Languages()[0]
	for _, l := range w.Languages() {
		if !slices.Equal(l.Keys(), first.Keys()) {
			t.Errorf("%s and %s have not the same texts", l.Code, first.Code)
		}
		for _, k := range l.Keys() {
			if want, got := verbs(first.texts[k]), verbs(l.texts[k]); !slices.Equal(got, want) {
				t.Errorf("%s: %s has %q, and in %s %q", k, l.Code, got, first.Code, want)
			}
			if l.texts[k] == "" {
				t.Errorf("%s: %s is empty", k, l.Code)
			}
		}
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	w, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"": "en", "en-GB,en;q=0.9": "en", "zh-CN,zh;q=0.9,en;q=0.8": "zh", "zh-TW": "zh", "fr": "en", "fr, zh;q=0.5": "zh", "de;q=0.1,en;q=0.9,zh;q=0.5": "en",
		"zh;q=zero": "en", "\x00\xff": "en", "*": "en",
	} {
		if got := w.Accepted(field).Code; got != want {
			t.Errorf("%q: %s, want %s", field, got, want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	w, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	l := w.Find("en")
	for _, c := range []struct {
		v        float64
		decimals int
		want     string
	}{{1234567, 0, "1,234,567"}, {0.5, 2, "0.50"}, {-3, 2, "-3"}} {
		if got := l.Number(c.v, c.decimals); got != c.want {
			t.Errorf("%v: %q, want %q", c.v, got, c.want)
		}
	}
	if got := l.Text("no.such.key"); got != "no.such.key" || l.Has("no.such.key") {
		t.Error(got)
	}
	if w.Find("xx") != nil {
		t.Error("a language that there is not was found")
	}
}
