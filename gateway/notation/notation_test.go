package notation

import (
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/variable"
)

func TestQuotedPointsAtTheText(t *testing.T) {
	t.Parallel()
	src := []byte("hook {\n  sees = [\"übel\", \"request.path\"]\n}\n")
	r := &Reader{Names: &variable.Names{Findings: &schema.Findings{Sources: schema.Sources{"plugin.hcl": src}}}}
	at := r.Quoted(hcl.Range{}, "plugin.hcl", "request.path")
	if got := string(at.SliceBytes(src)); got != `"request.path"` || at.Start.Line != 2 {
		t.Errorf("points at %q in line %d", got, at.Start.Line)
	}
	block := hcl.Range{Filename: "plugin.hcl", Start: hcl.Pos{Line: 1, Column: 1}}
	if at := r.Quoted(block, "plugin.hcl", "absent"); at != block {
		t.Errorf("a text that is not there is at %s, not at its block", at)
	}
	block.Start.Byte = len(src) + 1
	if at := r.Quoted(block, "plugin.hcl", "request.path"); at != block {
		t.Errorf("behind the end of the file it found %s", at)
	}
}

func TestPathsAreSeenFromTheConfiguration(t *testing.T) {
	t.Parallel()
	r := &Reader{Names: &variable.Names{Findings: &schema.Findings{Dir: "/etc/postern"}}}
	for in, want := range map[string]string{"": "", "ca.pem": "/etc/postern/ca.pem", "/ca.pem": "/ca.pem", "../ca.pem": "/etc/ca.pem"} {
		if got := r.Absolute(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	if got := r.Relative("/etc/postern/plugins/a.wasm"); got != "plugins/a.wasm" {
		t.Errorf("shown as %q", got)
	}
}

func TestFieldValue(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]bool{"": true, "a\tb": true, "ü": true, " a": false, "a\t": false, "a\r\nb": false, "a\x00": false, "\x7f": false} {
		if FieldValue(v) != want {
			t.Errorf("%q: %t, want %t", v, !want, want)
		}
	}
}
