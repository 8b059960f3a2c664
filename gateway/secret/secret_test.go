package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

func TestReadEnvironment(t *testing.T) {
	t.Parallel()
	environment := map[string]string{
		"GOOD": "s3cr3t-value\n", "TWO": "s3cr3t-value\n\n", "DOS": "s3cr3t-value\r\n", "EMPTY": "", "NEWLINE": "\n",
		"NUL": "s3cr3t-value\x00", "LATIN1": "s3cr3t-value\xe9", "DECOMPOSED": "s3cr3t-value e\u0301",
		"LONG": strings.Repeat("s3cr3t-value", MaxSize), "CR": "s3cr3t-value\r",
	}
	lookup := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	for _, c := range []struct {
		source Source
		want   string
		err    error
	}{
		{Source{Env: "GOOD"}, "s3cr3t-value", nil},
		{Source{Env: "TWO"}, "s3cr3t-value\n", nil},
		{Source{Env: "DOS"}, "s3cr3t-value", nil},
		{Source{Env: "CR"}, "s3cr3t-value\r", nil},
		{Source{Env: "EMPTY"}, "", ErrEmpty},
		{Source{Env: "NEWLINE"}, "", ErrEmpty},
		{Source{Env: "NUL"}, "", ErrText},
		{Source{Env: "LATIN1"}, "", ErrText},
		{Source{Env: "DECOMPOSED"}, "", ErrText},
		{Source{Env: "LONG"}, "", ErrSize},
		{Source{Env: "ABSENT"}, "", ErrUnset},
		{Source{}, "", ErrSource},
		{Source{Env: "GOOD", File: "x"}, "", ErrSource},
	} {
		got, warning, err := c.source.Read(t.TempDir(), lookup)
		if got != c.want || !errors.Is(err, c.err) || warning != "" {
			t.Errorf("%v: got %q, %q, %v; want %q, %v", c.source, got, warning, err, c.want, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%v: the error tells the secret: %v", c.source, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", "s3cr3t\n", 0o600)
	write("group", "s3cr3t\n", 0o640)
	write("world", "s3cr3t", 0o604)
	write("empty", "", 0o600)
	write("long", strings.Repeat("s3cr3t", MaxSize), 0o600)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file    string
		want    string
		warning string
		err     error
	}{
		{"good", "s3cr3t", "", nil},
		{filepath.Join(dir, "good"), "s3cr3t", "", nil},
		{"link", "s3cr3t", "", nil},
		{"group", "s3cr3t", "file group can be read by others than its owner (mode 0640): chmod 600", nil},
		{"world", "s3cr3t", "file world can be read by others than its owner (mode 0604): chmod 600", nil},
		{"empty", "", "", ErrEmpty},
		{"long", "", "", ErrSize},
		{"folder", "", "", ErrFile},
		{"pipe", "", "", ErrFile},
		{"absent", "", "", os.ErrNotExist},
	} {
		got, warning, err := Source{File: c.file}.Read(dir, nil)
		if got != c.want || warning != c.warning || !errors.Is(err, c.err) {
			t.Errorf("%s: got %q, %q, %v; want %q, %q, %v", c.file, got, warning, err, c.want, c.warning, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error tells the secret: %v", c.file, err)
		}
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	list := cty.TupleVal([]cty.Value{cty.StringVal("a"), Value("b")})
	for _, c := range []struct {
		name   string
		value  cty.Value
		text   string
		secret bool
	}{
		{"secret", Value("x"), "x", true},
		{"plain", cty.StringVal("x"), "x", false},
		{"unknown", Unknown(), "", true},
		{"inside", list, "", true},
		{"number", cty.NumberIntVal(1), "", false},
		{"null", cty.NullVal(cty.String), "", false},
		{"nothing", cty.NilVal, "", false},
		{"marked by another", cty.StringVal("x").Mark("other"), "x", false},
	} {
		if text, isSecret := Reveal(c.value); text != c.text || isSecret != c.secret {
			t.Errorf("%s: got %q, %v", c.name, text, isSecret)
		}
	}
}
