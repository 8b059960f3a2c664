package main

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

func everything() *Detector {
	d := new(Detector)
	for k := Email; k < kindEnd; k++ {
		d.Kinds[k] = true
	}
	return d
}

// TestTables runs testdata/*.txt: a line is a text in which ‹ › mark what is to be found; a line without marks holds
// nothing. Lines that begin with # are comments. In a text \n is a line end.
func TestTables(t *testing.T) {
	t.Parallel()
	for k := Email; k < kindEnd; k++ {
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
