//go:build linux

package peer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// wasmKey is the one key that the proxy-wasm filter knows, by its SHA-256.
const wasmKey = "sk-bench-0123456789abcdef0123456789abcdef"

func findEnvoyWasm(ctx context.Context, t Tools) (Tool, error) {
	if !exists(filepath.Join(t.Root, "bin", "bench", "apikey.wasm")) {
		return Tool{}, errors.New("its filter is not built; make bench builds it where clang and lld are installed")
	}
	return program("envoy", `/(\d+\.\d+\.\d+)/`, "--version")(ctx, t)
}

// wasmFilter is the filter's entry in the list of filters.
func wasmFilter(s Site) string {
	return fmt.Sprintf(`
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: apikey
                root_id: apikey
                configuration:
                  "@type": type.googleapis.com/google.protobuf.StringValue
                  value: %q
                vm_config:
                  runtime: envoy.wasm.runtime.v8
                  code: { local: { filename: %q } }`, wasmKey, filepath.Join(s.Root, "bin", "bench", "apikey.wasm"))
}
