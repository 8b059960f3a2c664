// Package secret reads secrets from the environment and from files, and marks them so that they are never printed. Its
// main type is Source.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// MaxSize is the most octets a secret may have, its newline included.
const MaxSize = 64 << 10

// Source says where a secret's value is. Exactly one of the two is set.
type Source struct {
	Env  string // name of an environment variable
	File string // path of a file; a relative one is below the configuration's folder
}

// Errors of Read, besides those of the file system. No error ever holds any of the value.
var (
	ErrSource = errors.New("a secret comes from exactly one of env and file")
	ErrUnset  = errors.New("is not set")
	ErrEmpty  = errors.New("is empty")
	ErrFile   = errors.New("is not a regular file")
	ErrSize   = fmt.Errorf("has more than %d octets", MaxSize)
	ErrText   = errors.New("is not a line or more of UTF-8 text in normal form C, without NUL")
)

// String names the source, never the value: "environment variable X" or "file path".
func (s Source) String() string {
	if s.File != "" {
		return "file " + s.File
	}
	return "environment variable " + s.Env
}

// Read returns the value without one newline at its end. environment is asked for Env, usually os.LookupEnv. warning is
// for the operator when the value is good but others on this machine can read it; it is empty otherwise.
func (s Source) Read(dir string, environment func(name string) (string, bool)) (value, warning string, err error) {
	switch {
	case (s.Env == "") == (s.File == ""):
		return "", "", ErrSource
	case s.Env != "":
		text, ok := environment(s.Env)
		if !ok {
			return "", "", fmt.Errorf("%s %w", s, ErrUnset)
		}
		value = text
	default:
		if value, warning, err = s.readFile(dir); err != nil {
			return "", "", err
		}
	}
	if len(value) > MaxSize {
		return "", "", fmt.Errorf("%s %w", s, ErrSize)
	}
	value = trimNewline(value)
	switch {
	case value == "":
		return "", "", fmt.Errorf("%s %w", s, ErrEmpty)
	case !utf8.ValidString(value), strings.ContainsRune(value, 0), cty.NormalizeString(value) != value:
		// Expressions normalise text, which would change the secret silently.
		return "", "", fmt.Errorf("%s %w", s, ErrText)
	}
	return value, warning, nil
}

func (s Source) readFile(dir string) (value, warning string, err error) {
	path := s.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	// Looked at before it is opened: opening a named pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", s, reason(err))
	}
	if !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("%s %w", s, ErrFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", s, reason(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", s, reason(err))
	}
	if mode := info.Mode().Perm(); mode&0o044 != 0 {
		warning = fmt.Sprintf("%s can be read by others than its owner (mode %04o): chmod 600", s, mode)
	}
	return string(b), warning, nil
}

// reason takes the path out of a file error: String has named it already.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// trimNewline takes one line end off: editors and echo write one that nobody means.
func trimNewline(s string) string {
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		return strings.TrimSuffix(t, "\r")
	}
	return s
}

// mark is a type of its own, so that no other package can make an equal mark by chance.
type mark struct{}

// Value returns a secret as a value for expressions: a string that is marked, and so is whatever is computed from it.
func Value(value string) cty.Value { return cty.StringVal(value).Mark(mark{}) }

// Unknown stands for a secret that was not read, as when a configuration is only validated.
func Unknown() cty.Value { return cty.UnknownVal(cty.String).RefineNotNull().Mark(mark{}) }

// Marked reports whether v is secret or holds something that is.
func Marked(v cty.Value) bool { return v.HasMarkDeep(mark{}) }

// Reveal returns the text of v, a string, and whether it is secret. Whatever is no known string gives "".
func Reveal(v cty.Value) (text string, isSecret bool) {
	if v == cty.NilVal {
		return "", false
	}
	isSecret = Marked(v)
	v, _ = v.UnmarkDeep()
	if v.Type() != cty.String || !v.IsKnown() || v.IsNull() {
		return "", isSecret
	}
	return v.AsString(), isSecret
}
