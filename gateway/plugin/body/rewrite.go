// Package body reads the bodies of WebAssembly functions and writes them anew, so that they spend fuel, visit the host when
// it is used up and count how deep they call. Its main type is Rewriter, which package admission uses for whole modules;
// Reader and Writer are the binary format's numbers and names.
//
// Fuel is a global that counts down. A unit is about an instruction: what a stretch of code costs is known beforehand, is
// taken off where the stretch begins, and is checked where functions begin and loops go round. The same input so takes the
// same fuel always, however it is handed out. Short functions without loops and calls are charged to their callers.
//
// The engine (wazero) keeps what lives across a call on its stack and writes it there each time it is assigned, so that a
// call in a loop costs every iteration. Loops without calls therefore keep their fuel in a local, and the innermost ones
// leave themselves to visit the host: see Rewriter.loop.
//
// Depth is a global that counts down where a function that calls others begins, and up where it ends, by one and more for
// functions that keep much on the stack.
package body

import (
	"bytes"
	"strings"

	"github.com/postern-gateway/postern/gateway/plugin/lines"
)

const (
	// Functions and Globals are how many of each a rewritten body needs: the functions stand after the imports of the
	// module, the globals after all of its globals.
	Functions = 2
	Globals   = 2

	yield = 0 // (i64) -> i64, of the functions
	deep  = 1 // () -> ()

	// growShift makes a page that memory grows by cost 32,768 units: it is cleared, and with it now and then all is copied.
	growShift = 15
	// bulkShift makes two octets that are filled or copied a unit: memory that was never touched takes that long.
	bulkShift = 1
	// maxBacks is from how many places a loop may branch to itself to be charged there.
	maxBacks = 4
	// maxSpare is how many globals there may be for locals to be saved in.
	maxSpare = 32
)

// Type is a function type: value types as octets.
type Type struct{ Params, Results []byte }

// String is "(i32, i32) -> i64", and "() -> ()" for nothing.
func (t Type) String() string {
	results := list(t.Results)
	if len(t.Results) != 1 {
		results = "(" + results + ")"
	}
	return "(" + list(t.Params) + ") -> " + results
}

func list(types []byte) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = TypeName(t)
	}
	return strings.Join(names, ", ")
}

// Space is what bodies may name, by number.
type Space struct {
	Types    []Type
	Calls    []uint32 // types of all functions, the imported ones first
	Imported int      // functions among them
	Tables   int
	Globals  int
	Elements int     // segments
	Data     int     // segments that were counted
	Nesting  int     // blocks that may stand within each other
	Locals   int     // a function may have, with its parameters
	Leaves   []uint8 // what functions that are not imported cost their callers, 0 when they are charged themselves; from Check
}

// Renumber is the index of a function when the meter's stand after the imports.
func (s *Space) Renumber(function uint32) uint32 {
	if int(function) < s.Imported {
		return function
	}
	return function + Functions
}

// leaf is what a function costs its callers, 0 when it is charged itself.
func (s *Space) leaf(function uint32) int64 {
	if i := int(function) - s.Imported; i >= 0 && i < len(s.Leaves) {
		return int64(s.Leaves[i])
	}
	return 0
}

// kind is the type of function i of those that are not imported.
func (s *Space) kind(i int) Type { return s.Types[s.Calls[s.Imported+i]] }

// Span is where a function's body stands in the module.
type Span struct{ Start, Code, End int }

// Rewriter checks bodies with Check and writes them with Write, one after the other. The fields are set before the first.
type Rewriter struct {
	Space *Space
	Wasm  []byte
	Base  int          // where the code section's content begins, for Lines
	Lines *lines.Table // told where code goes

	Out   Writer // what Write appends to: the code section's content
	Types []Type // more types than Space has, which the bodies need
	Spare []byte // types of globals that the bodies need after the Globals; they begin as 0

	plan plan
	more map[string]int32 // indexes of Types, by results

	// Of the body being written:
	out    Writer
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

// Check checks the body of function i of those that are not imported: that it is well formed, that all it names is there and
// that its blocks nest. It returns where its code begins, how many locals it has, and what it costs its callers (see
// Space.Leaves).
func (rw *Rewriter) Check(i, start, end int) (span Span, locals int, leaf uint8, err *Refusal) {
	r := &Reader{Wasm: rw.Wasm, At: start, End: end, Section: sectionCode}
	locals = rw.Space.locals(r, i)
	if r.Err != nil {
		return span, 0, 0, r.Err
	}
	span = Span{Start: start, Code: r.At, End: end}
	if err = rw.plan.scan(rw.Space, rw.Wasm, i, span, locals); err != nil {
		return span, 0, 0, err
	}
	return span, locals, rw.plan.leafCost(), nil
}

// locals reads how many locals function i has, its parameters included.
func (s *Space) locals(r *Reader, i int) int {
	at := r.At
	sum := uint64(len(s.kind(i).Params))
	for range r.Count("groups of locals", 2, s.Locals) {
		sum += uint64(r.U32())
		at := r.At
		r.ValueType(at, r.Octet())
		if r.Err != nil {
			return 0
		}
	}
	if sum > uint64(s.Locals) {
		r.Fail(at, "function %d has %d locals, more than %d", s.Imported+i, sum, s.Locals)
		return 0
	}
	return int(sum)
}

// Write writes function i, which Check has accepted, with its size before it.
func (rw *Rewriter) Write(i int, b Span) {
	w, kind := &rw.out, rw.Space.kind(i)
	w.B = w.B[:0]
	locals := rw.Space.locals(&Reader{Wasm: rw.Wasm, At: b.Start, End: b.End}, i)
	p := &rw.plan
	if err := p.scan(rw.Space, rw.Wasm, i, b, locals); err != nil {
		panic(err) // Check has seen the same octets
	}
	rw.frames, rw.depth, rw.next, rw.tight = rw.frames[:0], 0, 1, false
	rw.locals(b, kind.Params, uint32(locals))
	mark := rw.Lines.At(b.Code-rw.Base, len(w.B))
	function := label{op: opBlock, kind: rw.kindOf(kind.Results)}
	if p.deep {
		rw.enter()
		rw.open(opBlock, function.kind)
	} else {
		function.depth = -1 // the label of the body itself
	}
	if cost := p.segments[0].cost; cost > 0 && !p.leaf() {
		rw.charge(cost)
	}
	if !p.leaf() && !p.short() {
		rw.check()
	}
	rw.frames = append(rw.frames, function)
	d := decoder{Reader: Reader{Wasm: rw.Wasm, At: b.Code, End: b.End}, space: rw.Space, locals: locals}
	var in instruction
	for d.More() {
		rw.Lines.At(d.At-rw.Base, len(w.B))
		d.next(&in)
		rw.segment(in.at)
		rw.instruction(&d, &in)
	}
	rw.Lines.At(b.End-rw.Base, len(w.B))
	rw.Out.U32(uint32(len(w.B)))
	rw.Lines.Shift(mark, len(rw.Out.B))
	rw.Out.Octet(w.B...)
}

// locals writes the body's locals with those the meter needs.
func (rw *Rewriter) locals(b Span, params []byte, known uint32) {
	r := &Reader{Wasm: rw.Wasm, At: b.Start, End: b.End}
	n := r.U32()
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
	rw.out.U32(n + more)
	for range n {
		count, kind := r.U32(), r.Octet()
		rw.out.U32(count)
		rw.out.Octet(kind)
		rw.kinds = append(rw.kinds, bytes.Repeat([]byte{kind}, int(count))...)
	}
	if tight {
		rw.out.Octet(1, I64)
		rw.fuel = known
		known++
	}
	if rw.plan.bulk {
		rw.out.Octet(2, I32)
		rw.length = known
	}
}

// kindOf is the type of a block that takes nothing and leaves results.
func (rw *Rewriter) kindOf(results []byte) blockType {
	switch len(results) {
	case 0:
		return blockType{index: -1, short: emptyBlock}
	case 1:
		return blockType{index: -1, short: results[0]}
	}
	n, ok := rw.more[string(results)]
	if !ok {
		if rw.more == nil {
			rw.more = make(map[string]int32)
		}
		n = int32(len(rw.Space.Types) + len(rw.Types))
		rw.more[string(results)] = n
		rw.Types = append(rw.Types, Type{Results: results})
	}
	return blockType{index: n}
}

func (rw *Rewriter) typeOf(index int32) Type {
	if n := int(index) - len(rw.Space.Types); n >= 0 {
		return rw.Types[n]
	}
	return rw.Space.Types[index]
}

func (rw *Rewriter) open(op byte, kind blockType) {
	rw.out.Octet(op)
	if kind.index < 0 {
		rw.out.Octet(kind.short)
	} else {
		rw.out.Signed(int64(kind.index))
	}
	rw.depth++
}

func (rw *Rewriter) close() {
	rw.out.Octet(opEnd)
	rw.depth--
}

// op writes an instruction with one index.
func (rw *Rewriter) op(op byte, index uint32) {
	rw.out.Octet(op)
	rw.out.U32(index)
}

func (rw *Rewriter) constant(op byte, v int64) {
	rw.out.Octet(op)
	rw.out.Signed(v)
}

func (rw *Rewriter) fuelGlobal() uint32  { return uint32(rw.Space.Globals) }
func (rw *Rewriter) depthGlobal() uint32 { return uint32(rw.Space.Globals) + 1 }

func (rw *Rewriter) call(function int) {
	rw.op(opCall, uint32(rw.Space.Imported+function))
}

// enter counts the depth down. What follows deep is never reached, and saying so keeps the path free of what would come
// back from a call.
func (rw *Rewriter) enter() {
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, int64(rw.plan.weight))
	rw.out.Octet(opI32Sub)
	rw.op(opGlobalSet, rw.depthGlobal())
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, 0)
	rw.out.Octet(opI32LtS)
	rw.open(opIf, blockType{index: -1, short: emptyBlock})
	rw.call(deep)
	rw.out.Octet(opUnreachable)
	rw.close()
}

func (rw *Rewriter) leave() {
	rw.op(opGlobalGet, rw.depthGlobal())
	rw.constant(opI32Const, int64(rw.plan.weight))
	rw.out.Octet(opI32Add)
	rw.op(opGlobalSet, rw.depthGlobal())
}

// charge takes a cost off the fuel.
func (rw *Rewriter) charge(cost int64) {
	get, set, variable := rw.account()
	rw.op(get, variable)
	rw.constant(opI64Const, cost)
	rw.out.Octet(opI64Sub)
	rw.op(set, variable)
}

// check visits the host when the fuel is below zero.
func (rw *Rewriter) check() {
	get, set, variable := rw.account()
	rw.op(get, variable)
	rw.constant(opI64Const, 0)
	rw.out.Octet(opI64LtS)
	rw.open(opIf, blockType{index: -1, short: emptyBlock})
	rw.op(get, variable)
	rw.call(yield)
	rw.op(set, variable)
	rw.close()
}

// account is where the fuel is: in a local within tight loops, so that no load and store stand in the way of iterations, and
// else in the global. What a trap within a tight loop leaves in the global is what it held before.
func (rw *Rewriter) account() (get, set byte, variable uint32) {
	if rw.tight {
		return opLocalGet, opLocalSet, rw.fuel
	}
	return opGlobalGet, opGlobalSet, rw.fuelGlobal()
}

// exit puts the fuel back into the global when a branch to that frame leaves a tight nest.
func (rw *Rewriter) exit(frame int) {
	if rw.leaves(frame) {
		rw.settle()
	}
}

func (rw *Rewriter) settle() {
	rw.op(opLocalGet, rw.fuel)
	rw.op(opGlobalSet, rw.fuelGlobal())
}

// leaves tells whether a branch to that frame leaves a tight nest.
func (rw *Rewriter) leaves(frame int) bool { return rw.tight && frame < rw.nest }

// branch writes br and br_if. One that leaves a tight nest settles the fuel on that way only, where the label takes nothing.
func (rw *Rewriter) branch(in *instruction) {
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
func (rw *Rewriter) arity(f label) int {
	switch {
	case f.kind.index >= 0 && f.op == opLoop:
		return len(rw.typeOf(f.kind.index).Params)
	case f.kind.index >= 0:
		return len(rw.typeOf(f.kind.index).Results)
	case f.kind.short == emptyBlock || f.op == opLoop:
		return 0
	}
	return 1
}

// segment charges for a segment that begins at that place and pays for itself. Headers of loops are charged in loop.
func (rw *Rewriter) segment(at int) {
	p := &rw.plan
	for ; rw.next < len(p.segments) && p.segments[rw.next].at <= at; rw.next++ {
		if s := &p.segments[rw.next]; s.payer == rw.next && s.header < 0 && s.cost > 0 && !p.leaf() {
			rw.charge(s.cost)
		}
	}
}

func (rw *Rewriter) instruction(d *decoder, in *instruction) {
	switch in.op {
	case opBlock, opIf:
		rw.open(in.op, in.kind)
		rw.frames = append(rw.frames, label{op: in.op, kind: in.kind, depth: rw.depth - 1})
	case opLoop:
		rw.loop(in)
	case opElse:
		rw.out.Octet(opElse)
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
			rw.out.U32(rw.target(t))
		}
	case opReturn:
		rw.exit(0)
		if rw.plan.deep {
			rw.op(opBr, uint32(rw.depth-1))
		} else {
			rw.out.Octet(opReturn)
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
func (rw *Rewriter) target(label uint32) uint32 {
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
func (rw *Rewriter) loop(in *instruction) {
	header := rw.plan.segments[rw.next]
	rw.next++
	l := rw.plan.loops[header.header]
	f := label{op: opLoop, kind: in.kind, root: l.root, loop: l, cost: header.cost}
	if l.root {
		rw.op(opGlobalGet, rw.fuelGlobal())
		rw.op(opLocalSet, rw.fuel)
		rw.tight, rw.nest = true, len(rw.frames)
	}
	f.wrapped = l.tight && !l.nests && (in.kind.index < 0 || len(rw.Space.Types[in.kind.index].Params) == 0)
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
	if f.late {
		return
	}
	if header.cost > 0 {
		rw.charge(header.cost)
	}
	switch { // also when the header has no cost: what is in the loop has
	case f.wrapped:
		rw.toSlow(f)
	case l.branched: // one that is not is a block
		rw.check()
	}
}

// toSlow leaves a wrapped loop when the fuel is below zero.
func (rw *Rewriter) toSlow(f label) {
	rw.op(opLocalGet, rw.fuel)
	rw.constant(opI64Const, 0)
	rw.out.Octet(opI64LtS)
	rw.op(opBrIf, uint32(rw.depth-f.depth))
}

// again branches to a loop that is charged for there.
func (rw *Rewriter) again(in *instruction, f label) {
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

func (rw *Rewriter) end() {
	f := rw.frames[len(rw.frames)-1]
	rw.frames = rw.frames[:len(rw.frames)-1]
	switch {
	case len(rw.frames) == 0 && rw.plan.deep:
		rw.close()
		rw.leave()
		rw.out.Octet(opEnd)
		return
	case len(rw.frames) == 0:
		rw.out.Octet(opEnd)
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
func (rw *Rewriter) visit(f label) {
	saved := rw.save(f.loop)
	rw.op(opLocalGet, rw.fuel)
	rw.call(yield)
	if !f.late { // the header takes it off again
		rw.constant(opI64Const, f.cost)
		rw.out.Octet(opI64Add)
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
func (rw *Rewriter) save(l loop) (saved [][2]uint32) {
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
		case *state != read || !a.set || kind == FuncRef || kind == ExternRef:
			continue
		default:
			*state = done
		}
		i := 0
		for i < len(rw.Spare) && (used[i] || rw.Spare[i] != kind) {
			i++
		}
		if i == maxSpare {
			break
		}
		if i == len(rw.Spare) {
			rw.Spare = append(rw.Spare, kind)
		}
		used[i] = true
		pair := [2]uint32{a.local, rw.depthGlobal() + 1 + uint32(i)}
		rw.op(opLocalGet, pair[0])
		rw.op(opGlobalSet, pair[1])
		saved = append(saved, pair)
	}
	return saved
}

// bulk charges for an operation before it is done: a unit for each 2 octets, or for each entry of a table. The length is on
// top of the stack.
func (rw *Rewriter) bulk(in *instruction) {
	rw.op(opLocalSet, rw.length)
	rw.op(opGlobalGet, rw.fuelGlobal())
	rw.op(opLocalGet, rw.length)
	rw.out.Octet(opExtendU)
	if in.sub <= miscMemoryFill {
		rw.constant(opI64Const, bulkShift)
		rw.out.Octet(opI64ShrU)
	}
	rw.out.Octet(opI64Sub)
	rw.op(opGlobalSet, rw.fuelGlobal())
	rw.check()
	rw.op(opLocalGet, rw.length)
}

// grow charges for what a memory or table was grown by when it was, 1<<shift units for each page or entry: guests ask for
// more than they can have to find out. What that overdraws is bounded by the maximum.
func (rw *Rewriter) grow(d *decoder, in *instruction, shift int64) {
	result := rw.length + 1
	rw.op(opLocalTee, rw.length)
	d.put(&rw.out, in)
	rw.op(opLocalSet, result)
	rw.op(opGlobalGet, rw.fuelGlobal())
	rw.op(opLocalGet, rw.length)
	rw.constant(opI32Const, 0)
	rw.op(opLocalGet, result)
	rw.constant(opI32Const, -1)
	rw.out.Octet(opI32Ne, opSelect, opExtendU)
	rw.constant(opI64Const, shift)
	rw.out.Octet(opI64Shl, opI64Sub)
	rw.op(opGlobalSet, rw.fuelGlobal())
	rw.check()
	rw.op(opLocalGet, result)
}
