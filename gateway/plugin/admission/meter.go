package admission

import (
	"bytes"
	"fmt"
)

const (
	// meterFunctions and meterGlobals are how many of each Meter adds.
	meterFunctions = 2
	meterGlobals   = 2
	// growShift makes a page that memory grows by cost 32,768 units: it is cleared, and with it now and then all is copied.
	growShift = 15
	// maxBacks is from how many places a loop may branch to itself to be charged there.
	maxBacks = 4
	// maxSpare is how many globals there may be for locals to be saved in.
	maxSpare = 32
)

// rewriter writes a module anew.
type rewriter struct {
	m     *Module
	types []functionType // those of the module and more
	plan  plan
	lines *lineTable // nil when there is nothing to map
	code  writer     // content of the code section
	spare []byte     // types of globals that locals are saved in during a visit

	// Of the body being written:
	out    writer
	kinds  []byte // types of its locals
	fuel   uint32 // the local that tight loops keep the fuel in
	length uint32 // the local for lengths of bulk operations; the next one is for their results
	frames []label
	depth  int  // open blocks of what is written
	next   int  // the next segment
	tight  bool // within a nest of loops that keep the fuel in a local
	nest   int  // the frame of that nest's outermost loop
}

// label is an open block of the module as it was.
type label struct {
	op      byte
	kind    blockType
	depth   int   // of the block that stands for it
	wrapped bool  // a loop that leaves itself for the host, in three blocks more
	root    bool  // the outermost of a nest of tight loops
	late    bool  // a loop that is charged where it is branched to
	loop    loop  // what is known of a loop
	cost    int64 // of a loop's header
}

// Meter returns the module rewritten: what is imported and exported is unchanged but for what the constants above name,
// and it computes the same. Custom sections are left away, but for names of functions and lines of source code. The error
// is a *Refusal: the module would grow too much.
func (m *Module) Meter() ([]byte, error) {
	rw := &rewriter{m: m, types: append([]functionType(nil), m.types...)}
	if m.HasDWARF() {
		rw.lines = m.readLines()
	}
	typeYield := rw.typeIndex([]byte{typeI64}, []byte{typeI64})
	typeDeep := rw.typeIndex(nil, nil)
	rw.bodies()

	w := &writer{b: make([]byte, 0, len(m.wasm)+len(rw.code.b))}
	w.octet([]byte("\x00asm\x01\x00\x00\x00")...)
	w.section(secType, rw.typeSection())
	w.section(secImport, rw.importSection(typeYield, typeDeep))
	for id := byte(secFunction); id <= secData; id++ {
		if id == secCode {
			rw.copy(w, secDataCount)
		}
		rw.section(w, id)
	}
	if names := m.names(); names != nil {
		w.custom(nameSection, names)
	}
	rw.lines.write(w)
	if most := 4*len(m.wasm) + 64<<10; len(w.b) > most {
		return nil, &Refusal{Section: "module", Reason: fmt.Sprintf("metered it has %d octets, more than %d: it has too many loops for its size", len(w.b), most)}
	}
	return w.b, nil
}

func (rw *rewriter) section(w *writer, id byte) {
	m := rw.m
	var content writer
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
		content = rw.code
	default:
		rw.copy(w, id)
	}
	if len(content.b) > 0 {
		w.section(id, content.b)
	}
}

// copy takes a section over as it is.
func (rw *rewriter) copy(w *writer, id byte) {
	if s := rw.m.find(id); s != nil {
		w.section(id, rw.m.wasm[s.start:s.end])
	}
}

func (rw *rewriter) reader(s *section) *reader {
	return &reader{wasm: rw.m.wasm, at: s.start, end: s.end, section: s.name}
}

// typeIndex is the index of a function type, which is added when there is none.
func (rw *rewriter) typeIndex(params, results []byte) int32 {
	for i, t := range rw.types {
		if string(t.params) == string(params) && string(t.results) == string(results) {
			return int32(i)
		}
	}
	rw.types = append(rw.types, functionType{params, results})
	return int32(len(rw.types) - 1)
}

func (rw *rewriter) typeSection() []byte {
	var w writer
	w.u32(uint32(len(rw.types)))
	for _, t := range rw.types {
		w.octet(0x60)
		w.u32(uint32(len(t.params)))
		w.octet(t.params...)
		w.u32(uint32(len(t.results)))
		w.octet(t.results...)
	}
	return w.b
}

// importSection puts the meter's functions after the module's own imports, so that only functions the module defines get
// other numbers.
func (rw *rewriter) importSection(yield, deep int32) []byte {
	m := rw.m
	var w writer
	w.u32(uint32(len(m.imports) + meterFunctions))
	functions, tables, memories, globals := 0, 0, 0, 0
	for _, i := range m.imports {
		w.name(i.Module)
		w.name(i.Name)
		switch i.Kind {
		case "function":
			w.octet(0)
			w.u32(m.calls[functions])
			functions++
		case "table":
			w.octet(1)
			m.tables[tables].write(&w)
			tables++
		case "memory":
			w.octet(2)
			m.memories[memories].write(&w)
			memories++
		case "global":
			w.octet(3, m.globals[globals].kind, flag(m.globals[globals].mutable))
			globals++
		}
	}
	for _, i := range []struct {
		name  string
		index int32
	}{{Yield, yield}, {Deep, deep}} {
		w.name(MeterModule)
		w.name(i.name)
		w.octet(0)
		w.u32(uint32(i.index))
	}
	return w.b
}

func (t table) write(w *writer) {
	w.octet(t.kind, 1)
	w.u32(t.min)
	w.u32(t.max)
}

func (t memory) write(w *writer) {
	w.octet(1)
	w.u32(t.min)
	w.u32(t.max)
}

func (rw *rewriter) tableSection(w *writer) {
	var own writer
	n := uint32(0)
	for _, t := range rw.m.tables {
		if !t.imported {
			t.write(&own)
			n++
		}
	}
	if n > 0 {
		w.u32(n)
		w.octet(own.b...)
	}
}

func (rw *rewriter) memorySection(w *writer) {
	for _, t := range rw.m.memories {
		if !t.imported {
			w.u32(1)
			t.write(w)
		}
	}
}

func (rw *rewriter) globalSection(w *writer) {
	if s := rw.m.find(secGlobal); s != nil {
		rw.m.globalSection(rw.reader(s), w, meterGlobals+len(rw.spare))
	} else {
		w.u32(uint32(meterGlobals + len(rw.spare)))
	}
	w.octet(typeI64, 1, opI64Const, 0, opEnd)
	w.octet(typeI32, 1, opI32Const)
	w.signed(DefaultDepth)
	w.octet(opEnd)
	for _, kind := range rw.spare {
		w.octet(kind, 1)
		w.octet(zero(kind)...)
		w.octet(opEnd)
	}
}

// zero is the constant a number or vector begins as.
func zero(kind byte) []byte {
	switch kind {
	case typeI32:
		return []byte{opI32Const, 0}
	case typeI64:
		return []byte{opI64Const, 0}
	case typeF32:
		return append([]byte{opF32Const}, make([]byte, 4)...)
	case typeF64:
		return append([]byte{opF64Const}, make([]byte, 8)...)
	}
	return append([]byte{opVector, vectorConst}, make([]byte, 16)...)
}

func (rw *rewriter) exportSection(w *writer) {
	if s := rw.m.find(secExport); s != nil {
		rw.m.exportSection(rw.reader(s), w)
	} else {
		w.u32(meterGlobals)
	}
	w.name(FuelGlobal)
	w.octet(3)
	w.u32(rw.fuelGlobal())
	w.name(DepthGlobal)
	w.octet(3)
	w.u32(rw.depthGlobal())
}

func (rw *rewriter) fuelGlobal() uint32  { return uint32(len(rw.m.globals)) }
func (rw *rewriter) depthGlobal() uint32 { return uint32(len(rw.m.globals)) + 1 }

func (rw *rewriter) bodies() {
	rw.code.u32(uint32(len(rw.m.bodies)))
	for i, b := range rw.m.bodies {
		rw.body(i, b)
	}
}

// body writes function i. Everything was checked by Read; an error can not come up.
func (rw *rewriter) body(i int, b body) {
	m, w := rw.m, &rw.out
	w.b = w.b[:0]
	r := &reader{wasm: m.wasm, at: b.start, end: b.end}
	locals := m.localsOf(r, i)
	p := &rw.plan
	if err := p.scan(m, i, b, locals); err != nil {
		panic(err) // Read has seen the same bytes
	}
	rw.frames, rw.depth, rw.next, rw.tight = rw.frames[:0], 0, 1, false
	rw.locals(b, m.types[m.calls[m.imported+i]].params, uint32(locals))
	codeStart := m.find(secCode).start
	mark := rw.lines.at(b.code-codeStart, len(w.b))
	function := label{op: opBlock, kind: rw.kindOf(m.types[m.calls[m.imported+i]].results)}
	if p.deep {
		rw.enter()
		rw.open(opBlock, function.kind)
	} else {
		function.depth = -1 // the label of the body itself
	}
	if cost := p.segments[0].cost; cost > 0 && !p.leaf() {
		rw.charge(cost)
		if !p.short() {
			rw.check()
		}
	}
	rw.frames = append(rw.frames, function)
	d := decoder{reader: reader{wasm: m.wasm, at: b.code, end: b.end}, m: m, locals: locals}
	var in instruction
	for d.more() {
		rw.lines.at(d.at-codeStart, len(w.b))
		d.next(&in)
		rw.segment(in.at)
		rw.instruction(&d, &in)
	}
	rw.code.u32(uint32(len(w.b)))
	rw.lines.at(b.end-codeStart, len(w.b))
	rw.lines.shift(mark, len(rw.code.b))
	rw.code.octet(w.b...)
}

// locals writes the body's locals with those the meter needs.
func (rw *rewriter) locals(b body, params []byte, known uint32) {
	r := &reader{wasm: rw.m.wasm, at: b.start, end: b.end}
	n := r.u32()
	rw.kinds = append(rw.kinds[:0], params...)
	tight := false
	for _, l := range rw.plan.loops {
		tight = tight || l.root
	}
	more := uint32(0)
	if tight {
		more++
	}
	if rw.plan.bulk {
		more++ // a group of two
	}
	rw.out.u32(n + more)
	for range n {
		count, kind := r.u32(), r.octet()
		rw.out.u32(count)
		rw.out.octet(kind)
		rw.kinds = append(rw.kinds, bytes.Repeat([]byte{kind}, int(count))...)
	}
	if tight {
		rw.out.octet(1, typeI64)
		rw.fuel = known
		known++
	}
	if rw.plan.bulk {
		rw.out.octet(2, typeI32)
		rw.length = known
	}
}

// kindOf is the type of a block that takes nothing and leaves results.
func (rw *rewriter) kindOf(results []byte) blockType {
	switch len(results) {
	case 0:
		return blockType{index: -1, short: emptyBlock}
	case 1:
		return blockType{index: -1, short: results[0]}
	}
	return blockType{index: rw.typeIndex(nil, results)}
}

func (rw *rewriter) open(op byte, kind blockType) {
	rw.out.octet(op)
	if kind.index < 0 {
		rw.out.octet(kind.short)
	} else {
		rw.out.signed(int64(kind.index))
	}
	rw.depth++
}

func (rw *rewriter) close() {
	rw.out.octet(opEnd)
	rw.depth--
}

// op writes an instruction with one index.
func (rw *rewriter) op(op byte, index uint32) {
	rw.out.octet(op)
	rw.out.u32(index)
}

func (rw *rewriter) constant(op byte, v int64) {
	rw.out.octet(op)
	rw.out.signed(v)
}

func (rw *rewriter) call(function int) {
	rw.op(opCall, uint32(rw.m.imported+function))
}

// enter counts the depth down. What follows deep is never reached, and saying so keeps the path free of what would come
// back from a call.
func (rw *rewriter) enter() {
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, int64(rw.plan.weight))
	rw.out.octet(opI32Sub)
	rw.op(opGlobalSet, rw.depthGlobal())
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, 0)
	rw.out.octet(opI32LtS)
	rw.open(opIf, blockType{index: -1, short: emptyBlock})
	rw.call(1)
	rw.out.octet(opUnreachable)
	rw.close()
}

func (rw *rewriter) leave() {
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, int64(rw.plan.weight))
	rw.out.octet(opI32Add)
	rw.op(opGlobalSet, rw.depthGlobal())
}

// charge takes a cost off the fuel.
func (rw *rewriter) charge(cost int64) {
	get, set, variable := rw.account()
	rw.op(get, variable)
	rw.constant(opI64Const, cost)
	rw.out.octet(opI64Sub)
	rw.op(set, variable)
}

// check visits the host when the fuel is below zero.
func (rw *rewriter) check() {
	get, set, variable := rw.account()
	rw.op(get, variable)
	rw.constant(opI64Const, 0)
	rw.out.octet(opI64LtS)
	rw.open(opIf, blockType{index: -1, short: emptyBlock})
	rw.op(get, variable)
	rw.call(0)
	rw.op(set, variable)
	rw.close()
}

// account is where the fuel is: in a local within tight loops, so that no load and store stand in the way of iterations, and
// else in the global. What a trap within a tight loop leaves in the global is what it held before.
func (rw *rewriter) account() (get, set byte, variable uint32) {
	if rw.tight {
		return opLocalGet, opLocalSet, rw.fuel
	}
	return opGlobalGet, opGlobalSet, rw.fuelGlobal()
}

// exit puts the fuel back into the global when a branch to that frame leaves a tight nest.
func (rw *rewriter) exit(frame int) {
	if rw.leaves(frame) {
		rw.settle()
	}
}

func (rw *rewriter) settle() {
	rw.op(opLocalGet, rw.fuel)
	rw.op(opGlobalSet, rw.fuelGlobal())
}

// leaves tells whether a branch to that frame leaves a tight nest.
func (rw *rewriter) leaves(frame int) bool { return rw.tight && frame < rw.nest }

// branch writes br and br_if. One that leaves a tight nest settles the fuel on that way only, where the label takes nothing.
func (rw *rewriter) branch(in *instruction) {
	frame := len(rw.frames) - 1 - int(in.a)
	if rw.frames[frame].late {
		rw.again(in, rw.frames[frame])
		return
	}
	if in.op == opBrIf && rw.leaves(frame) && rw.arity(rw.frames[frame]) == 0 {
		rw.open(opIf, blockType{index: -1, short: emptyBlock})
		rw.settle()
		rw.op(opBr, rw.target(in.a))
		rw.close()
		return
	}
	rw.exit(frame)
	rw.op(in.op, rw.target(in.a))
}

// arity is how many values a branch to a frame takes.
func (rw *rewriter) arity(f label) int {
	switch {
	case f.kind.index >= 0 && f.op == opLoop:
		return len(rw.types[f.kind.index].params)
	case f.kind.index >= 0:
		return len(rw.types[f.kind.index].results)
	case f.kind.short == emptyBlock || f.op == opLoop:
		return 0
	}
	return 1
}

// segment charges for a segment that begins at that place and pays for itself. Headers of loops are charged in loop.
func (rw *rewriter) segment(at int) {
	p := &rw.plan
	for ; rw.next < len(p.segments) && p.segments[rw.next].at <= at; rw.next++ {
		if s := &p.segments[rw.next]; s.payer == rw.next && s.header < 0 && s.cost > 0 && !p.leaf() {
			rw.charge(s.cost)
		}
	}
}

func (rw *rewriter) instruction(d *decoder, in *instruction) {
	switch in.op {
	case opBlock, opIf:
		rw.open(in.op, in.kind)
		rw.frames = append(rw.frames, label{op: in.op, kind: in.kind, depth: rw.depth - 1})
	case opLoop:
		rw.loop(in)
	case opElse:
		rw.out.octet(opElse)
	case opEnd:
		rw.end()
	case opBr, opBrIf:
		rw.branch(in)
	case opBrTable:
		// Some of the labels may leave, and nothing is lost when one does not.
		for _, t := range d.targets {
			if frame := len(rw.frames) - 1 - int(t); rw.leaves(frame) {
				rw.settle()
				break
			}
		}
		rw.op(opBrTable, uint32(len(d.targets)-1))
		for _, t := range d.targets {
			rw.out.u32(rw.target(t))
		}
	case opReturn:
		rw.exit(0)
		if rw.plan.deep {
			rw.op(opBr, uint32(rw.depth-1))
		} else {
			rw.out.octet(opReturn)
		}
	case opMemoryGrow:
		rw.grow(d, in, growShift)
	case opMisc:
		switch {
		case in.sub == miscTableGrow:
			rw.grow(d, in, 0)
			return
		case in.bulk():
			rw.bulk(in)
		}
		d.put(&rw.out, in)
	default:
		d.put(&rw.out, in)
	}
}

// target is the label, as written now, of the block a label of the module names.
func (rw *rewriter) target(label uint32) uint32 {
	f := rw.frames[len(rw.frames)-1-int(label)]
	return uint32(rw.depth - 1 - f.depth)
}

// loop opens a loop and what its header needs.
//
// A tight loop without others in it keeps its path free of calls, because the engine would keep room for what a call may
// change: it leaves itself for the host and is entered again, with its state in locals as ever.
//
//	fuel -= cost
//	block done
//	  loop outer
//	    block slow
//	      loop            the module's own
//	        ...
//	        fuel -= cost; br_if slow when fuel < 0; br loop    where it branches to itself
//	      end
//	      br done
//	    end
//	    fuel = yield(fuel)
//	    br outer
//	  end
//	end
//
// What the loop assigns is not left in locals during the visit, but put into globals: the engine would write what lives
// across a call to its stack in every iteration. A loop that branches to itself from many places charges in its header.
func (rw *rewriter) loop(in *instruction) {
	header := rw.plan.segments[rw.next]
	rw.next++
	l := rw.plan.loops[header.header]
	f := label{op: opLoop, kind: in.kind, root: l.root, loop: l, cost: header.cost}
	if l.root {
		rw.op(opGlobalGet, rw.fuelGlobal())
		rw.op(opLocalSet, rw.fuel)
		rw.tight, rw.nest = true, len(rw.frames)
	}
	f.wrapped = l.tight && !l.nests && (in.kind.index < 0 || len(rw.m.types[in.kind.index].params) == 0)
	f.late = f.wrapped && l.backs <= maxBacks && !l.table
	if f.late {
		rw.charge(header.cost)
	}
	if f.wrapped {
		rw.open(opBlock, in.kind)
		rw.open(opLoop, in.kind)
		rw.open(opBlock, blockType{index: -1, short: emptyBlock})
	}
	rw.open(opLoop, in.kind)
	f.depth = rw.depth - 1
	rw.frames = append(rw.frames, f)
	if f.late || header.cost == 0 {
		return
	}
	rw.charge(header.cost)
	switch {
	case f.wrapped:
		rw.toSlow(f)
	case l.branched: // one that is not is a block
		rw.check()
	}
}

// toSlow leaves a wrapped loop when the fuel is below zero.
func (rw *rewriter) toSlow(f label) {
	rw.op(opLocalGet, rw.fuel)
	rw.constant(opI64Const, 0)
	rw.out.octet(opI64LtS)
	rw.op(opBrIf, uint32(rw.depth-f.depth))
}

// again branches to a loop that is charged for there.
func (rw *rewriter) again(in *instruction, f label) {
	if in.op == opBrIf {
		rw.open(opIf, blockType{index: -1, short: emptyBlock})
	}
	rw.charge(f.cost)
	rw.toSlow(f)
	rw.op(opBr, rw.target(in.a))
	if in.op == opBrIf {
		rw.close()
	}
}

func (rw *rewriter) end() {
	f := rw.frames[len(rw.frames)-1]
	rw.frames = rw.frames[:len(rw.frames)-1]
	switch {
	case len(rw.frames) == 0 && rw.plan.deep:
		rw.close()
		rw.leave()
		rw.out.octet(opEnd)
		return
	case len(rw.frames) == 0:
		rw.out.octet(opEnd)
		return
	}
	rw.close()
	if f.wrapped {
		rw.op(opBr, 2)
		rw.close()
		rw.visit(f)
		rw.op(opBr, 0)
		rw.close()
		rw.close()
	}
	if f.root {
		rw.settle()
		rw.tight = false
	}
}

// visit is the way of a wrapped loop to the host.
func (rw *rewriter) visit(f label) {
	saved := rw.save(f.loop)
	rw.op(opLocalGet, rw.fuel)
	rw.call(0)
	if !f.late { // the header takes it off again
		rw.constant(opI64Const, f.cost)
		rw.out.octet(opI64Add)
	}
	rw.op(opLocalSet, rw.fuel)
	for _, pair := range saved {
		rw.op(opGlobalGet, pair[1])
		rw.op(opLocalSet, pair[0])
	}
}

// save puts what a loop carries from one iteration to the next into spare globals and says where: local by local, in pairs.
// That is what is read first and assigned later; what is assigned first would only be carried because it is saved. References
// stay where they are, and so does what there is no global for: saving nothing would be right as well.
func (rw *rewriter) save(l loop) (saved [][2]uint32) {
	const read, assigned, done = 1, 2, 3
	var used [maxSpare]bool
	seen := make([]byte, len(rw.kinds))
	for _, a := range rw.plan.accesses[l.from:l.to] {
		kind := rw.kinds[a.local]
		switch state := &seen[a.local]; {
		case *state == 0 && a.set:
			*state = assigned
			continue
		case *state == 0:
			*state = read
			continue
		case *state != read || !a.set || kind == typeFunc || kind == typeExtern:
			continue
		default:
			*state = done
		}
		i := 0
		for i < len(rw.spare) && (used[i] || rw.spare[i] != kind) {
			i++
		}
		if i == maxSpare {
			break
		}
		if i == len(rw.spare) {
			rw.spare = append(rw.spare, kind)
		}
		used[i] = true
		pair := [2]uint32{a.local, rw.depthGlobal() + 1 + uint32(i)}
		rw.op(opLocalGet, pair[0])
		rw.op(opGlobalSet, pair[1])
		saved = append(saved, pair)
	}
	return saved
}

// bulk charges for an operation before it is done: a unit for each 8 octets, or for each entry of a table. The length is on
// top of the stack.
func (rw *rewriter) bulk(in *instruction) {
	rw.op(opLocalSet, rw.length)
	rw.op(opGlobalGet, rw.fuelGlobal())
	rw.op(opLocalGet, rw.length)
	rw.out.octet(opExtendU)
	if in.sub <= miscMemoryFill {
		rw.constant(opI64Const, 3)
		rw.out.octet(opI64ShrU)
	}
	rw.out.octet(opI64Sub)
	rw.op(opGlobalSet, rw.fuelGlobal())
	rw.check()
	rw.op(opLocalGet, rw.length)
}

// grow charges for what a memory or table was grown by when it was, 1<<shift units for each page or entry: guests ask for
// more than they can have to find out. What that overdraws is bounded by the maximum.
func (rw *rewriter) grow(d *decoder, in *instruction, shift int64) {
	result := rw.length + 1
	rw.op(opLocalTee, rw.length)
	d.put(&rw.out, in)
	rw.op(opLocalSet, result)
	rw.op(opGlobalGet, rw.fuelGlobal())
	rw.op(opLocalGet, rw.length)
	rw.constant(opI32Const, 0)
	rw.op(opLocalGet, result)
	rw.constant(opI32Const, -1)
	rw.out.octet(opI32Ne, opSelect, opExtendU)
	rw.constant(opI64Const, shift)
	rw.out.octet(opI64Shl, opI64Sub)
	rw.op(opGlobalSet, rw.fuelGlobal())
	rw.check()
	rw.op(opLocalGet, result)
}
