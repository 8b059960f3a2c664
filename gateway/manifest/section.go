package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-gateway/postern/sdk/abi"
)

// ErrModule is wrapped by the errors of Pack and Section about what is no WebAssembly module.
var ErrModule = errors.New("not a WebAssembly module")

// Section returns the manifest that a module carries in its custom section, a part of wasm; ok is false when it carries none.
// Only the headers of the sections are read. A module with two manifests is refused: which one counts would depend on
// who reads it.
func Section(wasm []byte) (manifest []byte, ok bool, err error) {
	err = eachSection(wasm, func(_, _ int, name string, payload []byte) error {
		switch {
		case name != abi.ManifestSection:
			return nil
		case ok:
			return fmt.Errorf("module has more than one section %s", abi.ManifestSection)
		case len(payload) > MaxSize:
			return fmt.Errorf("section %s has more than %d octets", abi.ManifestSection, MaxSize)
		}
		manifest, ok = payload, true
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return manifest, ok, nil
}

// Pack returns a copy of the module with manifest in its custom section, instead of any that is there.
func Pack(wasm, manifest []byte) ([]byte, error) {
	if len(manifest) > MaxSize {
		return nil, fmt.Errorf("manifest has %d octets, more than %d", len(manifest), MaxSize)
	}
	return Replace(wasm, abi.ManifestSection, manifest)
}

// Replace returns a copy of the module with content in the custom section of that name, at the end, instead of any that is
// there. Only the headers of the sections are read.
func Replace(wasm []byte, section string, content []byte) ([]byte, error) {
	out, err := without(wasm, len(content)+len(section)+16, func(name string) bool { return name == section })
	if err != nil {
		return nil, err
	}
	head := binary.AppendUvarint(nil, uint64(len(section)))
	head = append(head, section...)
	out = append(out, 0) // id of a custom section
	out = binary.AppendUvarint(out, uint64(len(head)+len(content)))
	out = append(out, head...)
	return append(out, content...), nil
}

// Strip returns a copy of the module without what is only for people who look for mistakes: the names of functions and the
// DWARF sections. What it runs is the same.
func Strip(wasm []byte) ([]byte, error) {
	return without(wasm, 0, func(name string) bool { return name == "name" || strings.HasPrefix(name, ".debug_") })
}

// without copies a module without the custom sections that drop picks, and with room for more octets at its end.
func without(wasm []byte, room int, drop func(name string) bool) ([]byte, error) {
	out := make([]byte, 0, len(wasm)+room)
	kept := 0
	err := eachSection(wasm, func(start, end int, name string, _ []byte) error {
		if name != "" && drop(name) {
			out = append(out, wasm[kept:start]...)
			kept = end
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(out, wasm[kept:]...), nil
}

// eachSection walks the sections of a module (WebAssembly core specification, section 5.5.2). visit gets where each
// begins and ends, and name and payload of custom ones.
func eachSection(wasm []byte, visit func(start, end int, name string, payload []byte) error) error {
	if len(wasm) < 8 || string(wasm[:8]) != "\x00asm\x01\x00\x00\x00" {
		return fmt.Errorf("%w of version 1", ErrModule)
	}
	for at := 8; at < len(wasm); {
		size, n := leb32(wasm[at+1:])
		begin := at + 1 + n
		if n == 0 || uint64(size) > uint64(len(wasm)-begin) {
			return fmt.Errorf("%w: section at octet %d does not fit", ErrModule, at)
		}
		end := begin + int(size)
		name, payload := "", []byte(nil)
		if wasm[at] == 0 {
			length, n := leb32(wasm[begin:end])
			if n == 0 || uint64(length) > uint64(end-begin-n) {
				return fmt.Errorf("%w: name of the custom section at octet %d does not fit", ErrModule, at)
			}
			name, payload = string(wasm[begin+n:begin+n+int(length)]), wasm[begin+n+int(length):end]
		}
		if err := visit(at, end, name, payload); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// leb32 reads an unsigned LEB128 number of at most 32 bits; n is 0 when there is none.
func leb32(b []byte) (v uint32, n int) {
	wide, n := binary.Uvarint(b[:min(len(b), 5)])
	if n <= 0 || wide > 1<<32-1 {
		return 0, 0
	}
	return uint32(wide), n
}
