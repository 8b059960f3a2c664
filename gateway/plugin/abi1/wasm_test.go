package abi1_test

// module assembles small modules by hand: what a toolchain would never emit, and what need not be compiled for a second.
type module struct {
	imports [][3]any // module, name, type
	bodies  []body
	memory  []byte // the memory section's content; nil: one page
	noMem   bool
	extra   []byte // sections appended
}

type body struct {
	name string
	typ  int
	code []byte
}

// Types of the functions.
const (
	toI64     = iota // () -> i64
	i32ToI64         // (i32) -> i64
	i32i32I64        // (i32, i32) -> i64
	nothing          // () -> ()
)

func leb(n uint64) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func sleb(n int64) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func constant(n int64) []byte { return append([]byte{0x42}, sleb(n)...) }

func text(s string) []byte { return append(leb(uint64(len(s))), s...) }

func section(id byte, count int, content []byte) []byte {
	content = append(leb(uint64(count)), content...)
	return append(append([]byte{id}, leb(uint64(len(content)))...), content...)
}

func (m *module) bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, 4, []byte{
		0x60, 0, 1, 0x7e,
		0x60, 1, 0x7f, 1, 0x7e,
		0x60, 2, 0x7f, 0x7f, 1, 0x7e,
		0x60, 0, 0,
	})...)
	var imports, functions, exports, code []byte
	for _, i := range m.imports {
		imports = append(imports, text(i[0].(string))...)
		imports = append(imports, text(i[1].(string))...)
		imports = append(imports, 0, byte(i[2].(int)))
	}
	if len(m.imports) > 0 {
		b = append(b, section(2, len(m.imports), imports)...)
	}
	n := 0
	if !m.noMem {
		exports = append(append(exports, text("memory")...), 2, 0)
		n++
	}
	for i, f := range m.bodies {
		functions = append(functions, byte(f.typ))
		exports = append(append(exports, text(f.name)...), 0, byte(i+len(m.imports)))
		whole := append(append([]byte{0}, f.code...), 0x0b)
		code = append(append(code, leb(uint64(len(whole)))...), whole...)
		n++
	}
	b = append(b, section(3, len(m.bodies), functions)...)
	if !m.noMem {
		limits := m.memory
		if limits == nil {
			limits = []byte{0, 4}
		}
		b = append(b, section(5, 1, limits)...)
	}
	b = append(b, section(7, n, exports)...)
	b = append(b, section(10, len(m.bodies), code)...)
	return append(b, m.extra...)
}

// whole is a module that does nothing and breaks no rule: its frame buffer is at 64 KiB, 128 KiB long.
func whole() *module {
	return &module{bodies: []body{
		{"postern_abi_v1", toI64, constant(64<<10<<32 | 128<<10)},
		{"postern_configure", i32ToI64, constant(0)},
		{"postern_on", i32i32I64, constant(0)},
	}}
}

// with replaces or adds a function.
func (m *module) with(name string, typ int, code []byte) *module {
	for i := range m.bodies {
		if m.bodies[i].name == name {
			m.bodies[i] = body{name, typ, code}
			return m
		}
	}
	m.bodies = append(m.bodies, body{name, typ, code})
	return m
}

func (m *module) without(name string) *module {
	for i := range m.bodies {
		if m.bodies[i].name == name {
			m.bodies = append(m.bodies[:i], m.bodies[i+1:]...)
			break
		}
	}
	return m
}
