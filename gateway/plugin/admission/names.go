package admission

// Parts of the name section (core specification, appendix 7.4.1).
const (
	nameModule    = 0
	nameFunctions = 1
)

// names is the name section with the functions' new numbers: the names of the module and of its functions. Nothing depends
// on names, so one that is malformed is none.
func (m *Module) names() []byte {
	content, ok := m.Custom(nameSection)
	if !ok {
		return nil
	}
	r := &reader{wasm: content, end: len(content), section: nameSection}
	var w writer
	last := -1
	for r.more() {
		id := r.octet()
		size := int(r.u32())
		if size > r.end-r.at || int(id) <= last {
			return nil
		}
		last = int(id)
		part := &reader{wasm: content, at: r.at, end: r.at + size}
		r.at += size
		var out writer
		switch id {
		case nameModule:
			out.name(part.name(maxName))
		case nameFunctions:
			m.functionNames(part, &out)
		default:
			continue
		}
		if part.err != nil || part.more() {
			return nil
		}
		w.section(id, out.b)
	}
	if r.err != nil {
		return nil
	}
	return w.b
}

func (m *Module) functionNames(r *reader, w *writer) {
	n := r.count("names", 2, m.functions())
	w.u32(uint32(n))
	last := int64(-1)
	for range n {
		at := r.at
		index := r.index("function", m.functions())
		if int64(index) <= last {
			r.fail(at, "names are out of order")
		}
		last = int64(index)
		w.u32(m.renumber(index))
		w.name(r.name(len(r.wasm)))
		if r.err != nil {
			return
		}
	}
}
