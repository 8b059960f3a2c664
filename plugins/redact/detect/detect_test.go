package detect

import (
	"bufio"
	"os"
	"reflect"
	"strings"
	"testing"
)

func everything() *Detector {
	d := new(Detector)
	for k := Email; k < KindCount; k++ {
		d.Kinds[k] = true
	}
	return d
}

// TestTables runs testdata/*.txt: a line is a text in which ‹ › mark what is to be found; a line without marks holds
// nothing. Lines that begin with # are comments. In a text \n is a line end.
func TestTables(t *testing.T) {
	t.Parallel()
	for k := Email; k < KindCount; k++ {
		t.Run(k.Name(), func(t *testing.T) {
			t.Parallel()
			file, err := os.Open("testdata/" + k.Name() + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			positive, negative, n := 0, 0, 0
			d := everything()
			for lines := bufio.NewScanner(file); lines.Scan(); {
				n++
				line := lines.Text()
				if line == "" || line[0] == '#' {
					continue
				}
				line = strings.ReplaceAll(line, `\n`, "\n")
				text := strings.NewReplacer("‹", "", "›", "").Replace(line)
				var got strings.Builder
				at := 0
				for _, f := range d.Scan(nil, []byte(text), 0) {
					got.WriteString(text[at:f.Start] + "‹" + text[f.Start:f.End] + "›")
					at = f.End
					if f.Kind != k {
						t.Errorf("line %d: %q is taken for %s", n, text[f.Start:f.End], f.Kind.Name())
					}
				}
				got.WriteString(text[at:])
				if got.String() != line {
					t.Errorf("line %d:\n got %s\nwant %s", n, got.String(), line)
				}
				if text == line {
					negative++
				} else {
					positive++
				}
			}
			if positive < 10 || negative < 10 {
				t.Errorf("the table has %d positives and %d negatives", positive, negative)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	d := everything()
	for _, a := range []string{"example.com", "@only.example", "bob@example.org", "+1 415 555 2671", "4532015112830366"} {
		d.Allow = append(d.Allow, []byte(a))
	}
	text := "a@example.com b@mail.EXAMPLE.com c@notexample.com d@only.example e@sub.only.example Bob@example.org +1-415-555-2671 4532 0151 1283 0366"
	var got []string
	for _, f := range d.Scan(nil, []byte(text), 0) {
		got = append(got, text[f.Start:f.End])
	}
	if want := []string{"c@notexample.com", "e@sub.only.example"}; !reflect.DeepEqual(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func FuzzDetect(f *testing.F) {
	for _, s := range []string{"alice@example.com", "+14155552671", "4532 0151 1283 0366", "DE89370400440532013000", "-----BEGIN PRIVATE KEY-----\nMIIEvQ", "11010519491231002X", "a://b:c@d"} {
		f.Add([]byte(s))
		f.Add([]byte("x " + s + " y"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		last := 0
		for _, found := range everything().Scan(nil, text, 0) {
			if found.Start < last || found.End <= found.Start || found.End > len(text) || found.Kind == 0 || found.Kind >= KindCount {
				t.Fatalf("%q: %+v behind %d", text, found, last)
			}
			last = found.End
		}
	})
}

// BenchmarkScan64KiB has texts that cost most, beside an ordinary one: none may be much dearer.
func BenchmarkScan64KiB(b *testing.B) {
	for name, part := range map[string]string{
		"prose":   "The quick brown fox jumps over the lazy dog, in 2024 and again at 10:30; it costs $12.50 [1].\n",
		"numbers": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 ", "digits": "4532 0151 1283 0367 ", "ats": "a@a.a@", "begins": "-----BEGIN PRIVATE KEY-----x ",
		"urls": "a://b:", "words": "sk-ghp_AKIA eyJa.eyJb. xoxb-", "ibans": "DE89 3704 0044 0532 0130 01 ", "cues": "tel phone mobile 12 ", "pluses": "+(+(1-",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(strings.Repeat(part, (64<<10)/len(part)))
			d := everything()
			var finds []Find
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				finds = d.Scan(finds[:0], text, 0)
			}
		})
	}
}
