// Package secret reads secrets from the environment and from files, and marks them so that they are never printed. Its
// main type is Source.
package secret

import "github.com/zclconf/go-cty/cty"

// Source says where a secret's value is. Exactly one of the two is set.
type Source struct {
	Env  string // name of an environment variable
	File string // path of a file; relative ones are below the configuration's folder
}

// Mark is the cty mark of values that must not be printed.
const Mark mark = "secret"

type mark string

// Read returns the value.
func (s Source) Read(dir string, environment func(name string) (string, bool)) (value, warning string, err error) {
	return "", "", nil
}

// Value returns value as a marked string.
func Value(value string) cty.Value { return cty.StringVal(value).Mark(Mark) }

// Unknown stands for a secret that was not read.
func Unknown() cty.Value { return cty.UnknownVal(cty.String).Mark(Mark) }

// Marked reports whether v is secret or holds something that is.
func Marked(v cty.Value) bool { return v.HasMarkDeep(Mark) }

// Reveal returns v without its marks.
func Reveal(v cty.Value) cty.Value { v, _ = v.UnmarkDeep(); return v }
