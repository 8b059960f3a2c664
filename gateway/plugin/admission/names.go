package admission

import "github.com/postern-gateway/postern/gateway/plugin/body"

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
	r := &body.Reader{Wasm: content, End: len(content), Section: nameSection}
	var w body.Writer
	last := -1
	for r.More() {
		id := r.Octet()
		size := int(r.U32())
		if size > r.End-r.At || int(id) <= last {
			return nil
		}
		last = int(id)
		part := &body.Reader{Wasm: content, At: r.At, End: r.At + size}
		r.At += size
		var out body.Writer
		switch id {
		case nameModule:
			out.Name(part.Name(maxName))
		case nameFunctions:
			m.functionNames(part, &out)
		default:
			continue
		}
		if part.Err != nil || part.More() {
			return nil
		}
		w.Section(id, out.B)
	}
	if r.Err != nil {
		return nil
	}
	return w.B
}

func (m *Module) functionNames(r *body.Reader, w *body.Writer) {
	n := r.Count("names", 2, len(m.space.Calls))
	w.U32(uint32(n))
	last := int64(-1)
	for range n {
		at := r.At
		index := r.Index("function", len(m.space.Calls))
		if int64(index) <= last {
			r.Fail(at, "names are out of order")
		}
		last = int64(index)
		w.U32(m.space.Renumber(index))
		w.Name(r.Name(len(r.Wasm)))
		if r.Err != nil {
			return
		}
	}
}
