package manifest

import (
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
)

// Parse reads plugin.hcl.
func Parse(src []byte, filename string) (*Manifest, hcl.Diagnostics) { return nil, nil }

// Spec is the schema of the load-time arguments and blocks of a hook's config block.
func (m *Manifest) Spec(hook *Hook) hcldec.Spec { return nil }

// Decode reads a stage's config block. body is nil when the stage has none; diagnostics about what is then missing have
// no Subject, and the caller points at the stage. perRequest holds the per-request arguments that are set or have a
// default, by name, as expressions to compile to Argument.Type.Cty.
func (m *Manifest) Decode(hook *Hook, body hcl.Body, ctx *hcl.EvalContext) (config cty.Value, perRequest map[string]hcl.Expression, diags hcl.Diagnostics) {
	return cty.EmptyObjectVal, nil, nil
}

// ParseDuration reads "5ms", "1h30m", "400d".
func ParseDuration(s string) (time.Duration, error) { return 0, nil }

// ParseBytes reads "32KiB", "10MB", "512B" or a plain number of octets.
func ParseBytes(s string) (int64, error) { return 0, nil }

// Docs is a Markdown description.
func (m *Manifest) Docs() string { return "" }

// Pack returns the module with the manifest in its custom section.
func Pack(wasm, manifest []byte) ([]byte, error) { return nil, nil }

// Section returns the manifest in a module's custom section; ok is false when there is none.
func Section(wasm []byte) (manifest []byte, ok bool, err error) { return nil, false, nil }
