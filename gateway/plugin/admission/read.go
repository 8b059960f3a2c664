package admission

import (
	"fmt"

	"github.com/postern-gateway/postern/gateway/plugin/body"
)

const (
	page        = 64 << 10
	maxPages    = 65536 // that 32 bits can address
	maxName     = 16 << 10
	maxParams   = 255  // of a function type, and as many results
	maxCustom   = 1024 // sections
	nameSection = "name"
	// localsFactor times the locals one function may have is what all of them may.
	localsFactor = 256
)

// Sections by their number (core specification, section 5.5.2).
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

func sectionName(id byte) string {
	return [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}[id]
}

// order is the place of each section in a module, 0 for those that may stand anywhere: the count of data segments, which
// came late, stands before the code.
func order(id byte) int {
	return [...]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10}[id]
}

// Module is a module that Read accepted. It keeps the bytes it was read from, which must not be changed.
type Module struct {
	wasm   []byte
	limits Limits

	sections []section
	space    body.Space
	imports  []Import
	importAt []int // where each import stands
	tables   []table
	memories []memory
	globals  []global
	exports  []Export
	counted  bool // the segments of data are
	bodies   []body.Span
}

// section is where a section's content stands.
type section struct {
	id         byte
	name       string
	start, end int
}

type table struct {
	kind     byte
	min, max uint32 // max is clamped
	imported bool
}

type memory struct {
	min, max uint32 // pages; max is clamped
	imported bool
}

type global struct {
	kind    byte
	mutable bool
}

func (g global) String() string {
	if g.mutable {
		return "mut " + body.TypeName(g.kind)
	}
	return body.TypeName(g.kind)
}

// Read parses a module and holds it to l. The error is a *Refusal.
func Read(wasm []byte, l Limits) (*Module, error) {
	m := &Module{wasm: wasm, limits: l.withDefaults()}
	r := &body.Reader{Wasm: wasm, End: len(wasm), Section: "module"}
	m.space.Nesting, m.space.Locals = m.limits.Nesting, m.limits.Locals
	if int64(len(wasm)) > m.limits.Module {
		return nil, &Refusal{Section: "module", Reason: fmt.Sprintf("%d octets, more than %d", len(wasm), m.limits.Module)}
	}
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return nil, &Refusal{Section: "module", Reason: "not a WebAssembly module"}
	}
	switch string(wasm[4:8]) {
	case "\x01\x00\x00\x00":
	case "\x0d\x00\x01\x00":
		return nil, &Refusal{Section: "module", Offset: 4, Reason: "a component, of which plugins can not be made; a core module of version 1 is needed"}
	default:
		return nil, &Refusal{Section: "module", Offset: 4, Reason: "not of version 1"}
	}
	r.At = 8
	var last section
	names, customs := 0, 0
	for r.More() && r.Err == nil {
		at := r.At
		s := section{id: r.Octet()}
		if s.id > secDataCount {
			switch s.id {
			case 13:
				r.Fail(at, "section 13 is of the proposal exception handling, which is not supported")
			default:
				r.Fail(at, "section %d does not exist", s.id)
			}
			break
		}
		s.name = sectionName(s.id)
		size := int(r.U32())
		if r.Err != nil {
			break
		}
		if size > r.End-r.At {
			r.Fail(at, "section %s of %d octets does not fit into the %d that are left", s.name, size, r.End-r.At)
			break
		}
		s.start, s.end = r.At, r.At+size
		in := &body.Reader{Wasm: wasm, At: s.start, End: s.end, Section: s.name}
		if s.id == secCustom {
			s.name = in.Name(maxName)
			s.start = in.At
			if s.name == nameSection {
				names++
			}
			if names > 1 {
				in.Fail(at, "a second section of the name %q", nameSection)
			}
			customs++
			if customs > maxCustom {
				in.Fail(at, "more than %d custom sections", maxCustom)
			}
		} else {
			if order(s.id) <= order(last.id) {
				in.Fail(at, "stands after the section %s", last.name)
			}
			last = s
			m.parse(in, s.id)
			if in.Err == nil && in.More() {
				in.Fail(in.At, "%d octets are left after its content", in.End-in.At)
			}
		}
		if in.Err != nil {
			return nil, in.Err
		}
		m.sections = append(m.sections, s)
		r.At = s.end
	}
	if r.Err != nil {
		return nil, r.Err
	}
	if defined := len(m.space.Calls) - m.space.Imported; defined != len(m.bodies) {
		return nil, &Refusal{Section: "code", Offset: len(wasm), Reason: fmt.Sprintf("%d functions are declared, %d have a body", defined, len(m.bodies))}
	}
	if m.counted && m.space.Data > 0 && m.find(secData) == nil {
		return nil, &Refusal{Section: "data", Offset: len(wasm), Reason: fmt.Sprintf("%d segments are counted, 0 are there", m.space.Data)}
	}
	return m, nil
}

// find is the section of that number, nil when there is none.
func (m *Module) find(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

func (m *Module) parse(r *body.Reader, id byte) {
	switch id {
	case secType:
		m.typeSection(r)
	case secImport:
		m.importSection(r)
	case secFunction:
		m.functionSection(r)
	case secTable:
		m.tableSection(r)
	case secMemory:
		m.memorySection(r)
	case secGlobal:
		m.globalSection(r, nil, 0)
	case secExport:
		m.exportSection(r, nil)
	case secStart:
		m.startSection(r, nil)
	case secElement:
		m.elementSection(r, nil)
	case secDataCount:
		m.space.Data, m.counted = int(r.U32()), true
		if m.space.Data > m.limits.DataSegments {
			r.Fail(r.At, "%d segments, more than %d", m.space.Data, m.limits.DataSegments)
		}
	case secCode:
		m.codeSection(r)
	case secData:
		m.dataSection(r)
	}
}

func (m *Module) valueTypes(r *body.Reader) []byte {
	n := r.Count("types", 1, maxParams)
	at := r.At
	list := r.Take(n)
	for i, t := range list {
		r.ValueType(at+i, t)
	}
	return list
}

func (m *Module) typeSection(r *body.Reader) {
	n := r.Count("types", 3, m.limits.Types)
	for range n {
		at := r.At
		switch form := r.Octet(); form {
		case 0x60:
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			r.Fail(at, "type of the form 0x%02x is of the proposal garbage collection, which is not supported", form)
		default:
			r.Fail(at, "type of the form 0x%02x does not exist", form)
		}
		t := body.Type{Params: m.valueTypes(r), Results: m.valueTypes(r)}
		if r.Err != nil {
			return
		}
		m.space.Types = append(m.space.Types, t)
	}
}

func (m *Module) importSection(r *body.Reader) {
	n := r.Count("imports", 4, m.limits.Imports)
	for range n {
		at := r.At
		i := Import{Module: r.Name(maxName), Name: r.Name(maxName)}
		switch kind := r.Octet(); kind {
		case 0:
			i.Kind = "function"
			t := r.Index("type", len(m.space.Types))
			if r.Err != nil {
				return
			}
			i.Type = m.space.Types[t].String()
			m.space.Calls = append(m.space.Calls, t)
			m.space.Imported++
		case 1:
			i.Kind = "table"
			t := m.table(r)
			i.Type, t.imported = body.TypeName(t.kind), true
			m.tables = append(m.tables, t)
			m.space.Tables++
		case 2:
			i.Kind = "memory"
			t := m.memory(r)
			t.imported = true
			m.memories = append(m.memories, t)
		case 3:
			i.Kind = "global"
			g := m.global(r)
			i.Type = g.String()
			m.globals = append(m.globals, g)
			m.space.Globals++
		case 4:
			r.Fail(at, "import of a tag is of the proposal exception handling, which is not supported")
		default:
			r.Fail(at, "import of the kind %d does not exist", kind)
		}
		if i.Module == MeterModule {
			r.Fail(at, "module %q is the gateway's own", MeterModule)
		}
		if r.Err != nil {
			return
		}
		m.imports, m.importAt = append(m.imports, i), append(m.importAt, at)
	}
}

func (m *Module) functionSection(r *body.Reader) {
	n := r.Count("functions", 1, m.limits.Functions)
	for range n {
		m.space.Calls = append(m.space.Calls, r.Index("type", len(m.space.Types)))
	}
}

// bounds reads limits: a flag, the least and perhaps the most.
func (m *Module) bounds(r *body.Reader) (low, high uint32, bounded bool) {
	at := r.At
	flag := r.Octet()
	switch flag {
	case 0, 1:
	case 2, 3:
		r.Fail(at, "sharing is of the proposal threads, which is not supported")
	case 4, 5, 6, 7:
		r.Fail(at, "addresses of 64 bits are of the proposal memory64, which is not supported")
	default:
		r.Fail(at, "limits of the form 0x%02x do not exist", flag)
	}
	low = r.U32()
	if flag == 1 {
		if high = r.U32(); high < low && r.Err == nil {
			r.Fail(at, "the most, %d, is below the least, %d", high, low)
		}
	}
	return low, high, flag == 1
}

// table reads a table's type. What has no maximum gets what it begins with, or a little room when that is nothing, for
// tables that grow are rare and each entry costs the host memory.
func (m *Module) table(r *body.Reader) table {
	at := r.At
	t := table{kind: r.Octet()}
	if t.kind == 0x40 {
		r.Fail(at, "table with a first value is of the proposal typed function references, which is not supported")
	}
	if t.kind != body.FuncRef && t.kind != body.ExternRef {
		r.Fail(at, "table of the type 0x%02x does not exist", t.kind)
	}
	low, high, bounded := m.bounds(r)
	most := uint32(m.limits.Elements)
	if low > most {
		r.Fail(at, "table of %d entries, more than %d", low, most)
	}
	if !bounded {
		high = max(low, smallTable)
	}
	t.min, t.max = low, min(high, max(most, low))
	return t
}

// smallTable is the maximum of a table that states none and begins smaller.
const smallTable = 1024

func (m *Module) tableSection(r *body.Reader) {
	n := r.Count("tables", 3, m.limits.Tables)
	for range n {
		m.tables = append(m.tables, m.table(r))
		m.space.Tables++
	}
	if len(m.tables) > m.limits.Tables {
		r.Fail(r.At, "%d tables with the imported ones, more than %d", len(m.tables), m.limits.Tables)
	}
}

func (m *Module) memory(r *body.Reader) memory {
	at := r.At
	low, high, bounded := m.bounds(r)
	if low > maxPages || high > maxPages {
		r.Fail(at, "memory of more than %d pages", maxPages)
	}
	most := uint32(min(m.limits.Memory/page, maxPages))
	if low > most {
		r.Fail(at, "memory begins with %d octets, more than %d", int64(low)*page, m.limits.Memory)
	}
	if !bounded || high > most {
		high = most
	}
	return memory{min: low, max: high}
}

func (m *Module) memorySection(r *body.Reader) {
	at := r.At
	n := r.Count("memories", 2, maxPages)
	if n+len(m.memories) > 1 {
		r.Fail(at, "%d memories need the proposal multiple memories, which is not supported", n+len(m.memories))
	}
	for range n {
		m.memories = append(m.memories, m.memory(r))
	}
}

func (m *Module) global(r *body.Reader) global {
	at := r.At
	g := global{kind: r.Octet()}
	r.ValueType(at, g.kind)
	switch v := r.Octet(); v {
	case 0:
	case 1:
		g.mutable = true
	default:
		r.Fail(at, "global of the form 0x%02x does not exist", v)
	}
	return g
}

// globalSection writes that there are so many more.
func (m *Module) globalSection(r *body.Reader, w *body.Writer, more int) {
	n := r.Count("globals", 4, m.limits.Globals)
	w.U32(uint32(n + more))
	known := len(m.globals)
	for range n {
		g := m.global(r)
		w.Octet(g.kind, flag(g.mutable))
		m.space.Constant(r, w, min(known, len(m.globals)))
		if r.Err != nil {
			return
		}
		if w == nil {
			m.globals = append(m.globals, g)
			m.space.Globals++
		}
	}
	if len(m.globals) > m.limits.Globals {
		r.Fail(r.At, "%d globals with the imported ones, more than %d", len(m.globals), m.limits.Globals)
	}
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (m *Module) exportSection(r *body.Reader, w *body.Writer) {
	n := r.Count("exports", 3, m.limits.Exports)
	if w != nil {
		w.U32(uint32(n + body.Globals))
	}
	seen := make(map[string]bool, n)
	for range n {
		at := r.At
		e := Export{Name: r.Name(maxName)}
		kind := r.Octet()
		w.Name(e.Name)
		w.Octet(kind)
		var index uint32
		switch kind {
		case 0:
			index = r.Index("function", len(m.space.Calls))
			if r.Err != nil {
				return
			}
			e.Kind, e.Type = "function", m.space.Types[m.space.Calls[index]].String()
			index = m.space.Renumber(index)
		case 1:
			index = r.Index("table", len(m.tables))
			if r.Err != nil {
				return
			}
			e.Kind, e.Type = "table", body.TypeName(m.tables[index].kind)
		case 2:
			index = r.Index("memory", len(m.memories))
			e.Kind = "memory"
		case 3:
			index = r.Index("global", len(m.globals))
			if r.Err != nil {
				return
			}
			e.Kind, e.Type = "global", m.globals[index].String()
		case 4:
			r.Fail(at, "export of a tag is of the proposal exception handling, which is not supported")
		default:
			r.Fail(at, "export of the kind %d does not exist", kind)
		}
		w.U32(index)
		if e.Name == FuelGlobal || e.Name == DepthGlobal {
			r.Fail(at, "the name %q is the gateway's own", e.Name)
		}
		if seen[e.Name] {
			r.Fail(at, "a second export of the name %q", e.Name)
		}
		seen[e.Name] = true
		if r.Err != nil {
			return
		}
		if w == nil {
			m.exports = append(m.exports, e)
		}
	}
}

func (m *Module) startSection(r *body.Reader, w *body.Writer) {
	w.U32(m.space.Renumber(r.Index("function", len(m.space.Calls))))
}

// elementSection reads the segments of functions and references for tables: 8 forms (core specification, section 5.5.12).
func (m *Module) elementSection(r *body.Reader, w *body.Writer) {
	n := r.Count("element segments", 3, m.limits.Elements)
	w.U32(uint32(n))
	left := m.limits.Elements
	for range n {
		at := r.At
		form := r.U32()
		if form > 7 {
			r.Fail(at, "element segment of the form %d does not exist", form)
		}
		w.U32(form)
		active, named, expressions := form&1 == 0, form&2 != 0, form&4 != 0
		if active {
			if named {
				w.U32(r.Index("table", len(m.tables)))
			} else if len(m.tables) == 0 {
				r.Fail(at, "table 0 of 0 does not exist")
			}
			m.space.Constant(r, w, len(m.globals))
		}
		if !active || named { // what there is in it is said
			kind := r.Octet()
			if want := byte(0); !expressions && kind != want || expressions && kind != body.FuncRef && kind != body.ExternRef {
				r.Fail(at, "element segment of the kind 0x%02x does not exist", kind)
			}
			w.Octet(kind)
		}
		count := r.Count("elements", 1, left)
		left -= count
		w.U32(uint32(count))
		for range count {
			if expressions {
				m.space.Constant(r, w, len(m.globals))
			} else {
				w.U32(m.space.Renumber(r.Index("function", len(m.space.Calls))))
			}
			if r.Err != nil {
				return
			}
		}
	}
	m.space.Elements = n
}

func (m *Module) dataSection(r *body.Reader) {
	at := r.At
	n := r.Count("data segments", 2, m.limits.DataSegments)
	if m.counted && n != m.space.Data && r.Err == nil {
		r.Fail(at, "%d segments are counted, %d are there", m.space.Data, n)
	}
	for range n {
		at := r.At
		switch form := r.U32(); form {
		case 0, 2:
			if form == 2 && r.U32() != 0 {
				r.Fail(at, "a memory other than the first is named, which needs multiple memories")
			}
			if len(m.memories) == 0 {
				r.Fail(at, "there is no memory for data")
			}
			m.space.Constant(r, nil, len(m.globals))
		case 1:
		default:
			r.Fail(at, "data segment of the form %d does not exist", form)
		}
		r.Take(int(r.U32()))
		if r.Err != nil {
			return
		}
	}
}

func (m *Module) codeSection(r *body.Reader) {
	at := r.At
	n := r.Count("function bodies", 2, m.limits.Functions)
	if defined := len(m.space.Calls) - m.space.Imported; n != defined && r.Err == nil {
		r.Fail(at, "%d functions are declared, %d have a body", defined, n)
	}
	check := &body.Rewriter{Space: &m.space, Wasm: m.wasm}
	leaves := make([]uint8, 0, n)
	left := m.limits.Locals * localsFactor
	for i := range n {
		at := r.At
		size := int(r.U32())
		if size > m.limits.Body {
			r.Fail(at, "function %d has %d octets, more than %d", m.space.Imported+i, size, m.limits.Body)
		}
		start := r.At
		r.Take(size)
		if r.Err != nil {
			return
		}
		span, locals, leaf, err := check.Check(i, start, r.At)
		if err != nil {
			r.Err = err
			return
		}
		if left -= locals; left < 0 {
			r.Fail(at, "all functions together have more than %d locals", m.limits.Locals*localsFactor)
			return
		}
		m.bodies = append(m.bodies, span)
		leaves = append(leaves, leaf)
	}
	// Only now: until all are known, a call costs the same wherever what it calls stands.
	m.space.Leaves = leaves
}
