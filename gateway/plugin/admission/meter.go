package admission

import (
	"fmt"

	"github.com/postern-gateway/postern/gateway/plugin/body"
	"github.com/postern-gateway/postern/gateway/plugin/lines"
)

// rewriter writes a module anew.
type rewriter struct {
	m      *Module
	bodies body.Rewriter
}

// Meter returns the module rewritten: what is imported and exported is unchanged but for what the constants above name,
// and it computes the same. Custom sections are left away, but for names of functions and lines of source code. The error
// is a *Refusal: the module would grow too much.
func (m *Module) Meter() ([]byte, error) {
	rw := &rewriter{m: m, bodies: body.Rewriter{
		Space: &m.space, Wasm: m.wasm, Lines: m.lines(),
		Types: []body.Type{{Params: []byte{body.I64}, Results: []byte{body.I64}}, {}}, // of Yield and Deep
	}}
	if s := m.find(secCode); s != nil {
		rw.bodies.Base = s.start
	}
	code := &rw.bodies.Out
	code.U32(uint32(len(m.bodies)))
	for i, b := range m.bodies {
		rw.bodies.Write(i, b)
	}
	w := &body.Writer{B: make([]byte, 0, len(m.wasm)+len(code.B))}
	w.Octet([]byte("\x00asm\x01\x00\x00\x00")...)
	w.Section(secType, rw.typeSection())
	w.Section(secImport, rw.importSection())
	for id := byte(secFunction); id <= secData; id++ {
		if id == secCode {
			rw.copy(w, secDataCount)
		}
		rw.standard(w, id)
	}
	if names := m.names(); names != nil {
		w.Custom(nameSection, names)
	}
	for _, s := range rw.bodies.Lines.Sections() {
		w.Custom(s.Name, s.Content)
	}
	if most := 4*len(m.wasm) + 64<<10; len(w.B) > most {
		return nil, &Refusal{Section: "module", Reason: fmt.Sprintf("metered it has %d octets, more than %d: it has too many loops for its size", len(w.B), most)}
	}
	return w.B, nil
}

func (rw *rewriter) standard(w *body.Writer, id byte) {
	m := rw.m
	var content body.Writer
	switch s := m.find(id); {
	case id == secTable:
		rw.tableSection(&content)
	case id == secMemory:
		rw.memorySection(&content)
	case id == secGlobal:
		rw.globalSection(&content)
	case id == secExport:
		rw.exportSection(&content)
	case s == nil:
	case id == secStart:
		m.startSection(rw.reader(s), &content)
	case id == secElement:
		m.elementSection(rw.reader(s), &content)
	case id == secCode:
		content = rw.bodies.Out
	default:
		rw.copy(w, id)
	}
	if len(content.B) > 0 {
		w.Section(id, content.B)
	}
}

// copy takes a section over as it is.
func (rw *rewriter) copy(w *body.Writer, id byte) {
	if s := rw.m.find(id); s != nil {
		w.Section(id, rw.m.wasm[s.start:s.end])
	}
}

func (rw *rewriter) reader(s *section) *body.Reader {
	return &body.Reader{Wasm: rw.m.wasm, At: s.start, End: s.end, Section: s.name}
}

func (rw *rewriter) typeSection() []byte {
	var w body.Writer
	own := rw.m.space.Types
	w.U32(uint32(len(own) + len(rw.bodies.Types)))
	for _, list := range [][]body.Type{own, rw.bodies.Types} {
		for _, t := range list {
			w.Octet(0x60)
			w.Name(string(t.Params))
			w.Name(string(t.Results))
		}
	}
	return w.B
}

// importSection puts the meter's functions after the module's own imports, so that only functions the module defines get
// other numbers.
func (rw *rewriter) importSection() []byte {
	m := rw.m
	var w body.Writer
	w.U32(uint32(len(m.imports) + body.Functions))
	functions, tables, memories, globals := 0, 0, 0, 0
	for _, i := range m.imports {
		w.Name(i.Module)
		w.Name(i.Name)
		switch i.Kind {
		case "function":
			w.Octet(0)
			w.U32(m.space.Calls[functions])
			functions++
		case "table":
			w.Octet(1)
			m.tables[tables].write(&w)
			tables++
		case "memory":
			w.Octet(2)
			m.memories[memories].write(&w)
			memories++
		case "global":
			w.Octet(3, m.globals[globals].kind, flag(m.globals[globals].mutable))
			globals++
		}
	}
	for i, name := range []string{Yield, Deep} { // in the order of body.Functions and of their types
		w.Name(MeterModule)
		w.Name(name)
		w.Octet(0)
		w.U32(uint32(len(m.space.Types) + i))
	}
	return w.B
}

func (t table) write(w *body.Writer) {
	w.Octet(t.kind, 1)
	w.U32(t.min)
	w.U32(t.max)
}

func (t memory) write(w *body.Writer) {
	w.Octet(1)
	w.U32(t.min)
	w.U32(t.max)
}

func (rw *rewriter) tableSection(w *body.Writer) {
	var own body.Writer
	n := uint32(0)
	for _, t := range rw.m.tables {
		if !t.imported {
			t.write(&own)
			n++
		}
	}
	if n > 0 {
		w.U32(n)
		w.Octet(own.B...)
	}
}

func (rw *rewriter) memorySection(w *body.Writer) {
	for _, t := range rw.m.memories {
		if !t.imported {
			w.U32(1)
			t.write(w)
		}
	}
}

func (rw *rewriter) globalSection(w *body.Writer) {
	if s := rw.m.find(secGlobal); s != nil {
		rw.m.globalSection(rw.reader(s), w, body.Globals+len(rw.bodies.Spare))
	} else {
		w.U32(uint32(body.Globals + len(rw.bodies.Spare)))
	}
	w.Octet(body.I64, 1)
	w.Zero(body.I64)
	w.Octet(body.I32, 1)
	w.I32(DefaultDepth)
	for _, kind := range rw.bodies.Spare {
		w.Octet(kind, 1)
		w.Zero(kind)
	}
}

func (rw *rewriter) exportSection(w *body.Writer) {
	if s := rw.m.find(secExport); s != nil {
		rw.m.exportSection(rw.reader(s), w)
	} else {
		w.U32(body.Globals)
	}
	w.Name(FuelGlobal)
	w.Octet(3)
	w.U32(uint32(rw.m.space.Globals))
	w.Name(DepthGlobal)
	w.Octet(3)
	w.U32(uint32(rw.m.space.Globals + 1))
}

// lines is the module's line table, nil when it has none.
func (m *Module) lines() *lines.Table {
	line, _ := m.Custom(".debug_line")
	text, _ := m.Custom(".debug_str")
	lineText, _ := m.Custom(".debug_line_str")
	code := m.find(secCode)
	if len(line) == 0 || code == nil {
		return nil
	}
	return lines.Read(line, text, lineText, code.end-code.start)
}
