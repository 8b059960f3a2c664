package body

import "sort"

// What the rewriter charges. A unit is an instruction, which is a fraction of a nanosecond; what takes longer than its one
// instruction says is charged more.
const (
	// hostCost is charged for a call of an import, which takes 80 to 500 ns: as much as so many instructions, lest a guest
	// that does nothing else runs on for longer than its CPU limit says.
	hostCost = 512
	// growCost is charged for memory.grow and table.grow, whether they succeed or not.
	growCost = 256
	// slack is how many instructions of branches that may not be taken are charged with the code before them, besides as
	// many as that code has itself, so that small branches cost no instructions of their own.
	slack = 24
	// leafCost is what a function without loops and calls may cost in all for its callers to be charged instead of it.
	leafCost = 64
	// shortCost is what all of a function that calls none but leaves may cost for its entry not to be checked. Its callers
	// check, and so do its loops when they go round.
	shortCost = 128
	// frameSlots is how many values of 8 octets may be on the stack of a function that counts as one frame.
	frameSlots = 192
	// maxWeight is the most frames one counts as, so that there is none that can not be called at all.
	maxWeight = 1024
	// callCost is charged for a call, besides what the callee charges.
	callCost = 4
	// indirectCost is charged for a call through a table, whose callee may be one that charges nothing.
	indirectCost = 16
)

// plan is what is known of a function body before it is written anew: where to charge how much, and what its loops are.
//
// The body is cut into segments that are entered at their first instruction only: they begin where the body and where loops
// begin, after branches that may be taken, and where branches lead. A segment knows the one that is entered before it
// whenever it is entered (its dominator): structured control flow makes that the one before a conditional branch, and for
// what follows a block the one that the block was opened in. So a small segment can be charged there.
type plan struct {
	segments []segmentOf
	loops    []loop
	frames   []frame

	current int  // the open segment
	loop    int  // the innermost open loop, -1 outside
	dead    bool // after a branch that is always taken
	calls   bool // calls functions of the module, directly or through a table
	deep    bool // such as are not leaves
	bulk    bool // works on memory or tables in bulk
	fuel    int64
	weight  int // frames that it counts as
	slots   int // values that the engine may have to keep on its stack
	vectors bool

	accesses []access // of locals
	assigned []int    // where each local was assigned last, 0 for nowhere
}

// segmentOf a function body.
type segmentOf struct {
	at     int   // of its first instruction, in the module
	cost   int64 // with what is charged here for others
	spread int64 // of that, of code that may not be reached from here
	payer  int   // the segment that is charged for it
	header int   // the loop it is the header of, or -1
	always bool  // is entered as often as its dominator
}

// loop is a loop of a function body.
type loop struct {
	parent   int
	nests    bool // has loops in it
	slow     bool // has calls in it, of others than leaves, or bulk operations
	branched bool // is branched to: runs more than once
	backs    int  // branches to it, without those of tables
	table    bool // a table branches to it
	tight    bool // is branched to and not slow
	root     bool // the outermost of a tight nest
	inside   bool // within a tight nest, or its root
	from, to int  // in plan.accesses, those in it
}

// access is of a local.
type access struct {
	local uint32
	set   bool
}

// frame is an open block.
type frame struct {
	op       byte // of the block; opEnd for the function's own
	segment  int  // where it was opened
	loop     int  // its number, of a loop
	dead     bool // opened in dead code
	branched bool // is branched to
	at       int  // where it was opened
	farthest int  // the outermost frame that is branched to from within
	otherway bool // an if whose else was seen
}

// scan plans a body, and so checks all of it that Read promises.
func (p *plan) scan(space *Space, wasm []byte, function int, b Span, locals int) *Refusal {
	*p = plan{segments: p.segments[:0], loops: p.loops[:0], frames: p.frames[:0], accesses: p.accesses[:0], assigned: p.assigned[:0], loop: -1}
	p.assigned = append(p.assigned, make([]int, locals)...)
	p.segments = append(p.segments, segmentOf{at: b.Code, header: -1})
	p.frames = append(p.frames, frame{op: opEnd})
	d := decoder{Reader: Reader{Wasm: wasm, At: b.Code, End: b.End, Section: sectionCode}, space: space, locals: locals}
	var in instruction
	for d.More() {
		if len(p.frames) == 0 {
			d.Fail(d.At, "function %d goes on after its end", space.Imported+function)
			break
		}
		d.next(&in)
		if d.Err != nil {
			break
		}
		p.step(&d, &in)
	}
	if d.Err == nil && len(p.frames) > 0 {
		d.Fail(b.End, "function %d ends within %d blocks", space.Imported+function, len(p.frames))
	}
	if d.Err != nil {
		return d.Err
	}
	p.finish(space.kind(function), locals)
	return nil
}

// step takes in one instruction; d stands after it.
func (p *plan) step(d *decoder, in *instruction) {
	switch op := in.op; op {
	case opBlock, opLoop, opIf:
		if len(p.frames) > d.space.Nesting {
			d.Fail(in.at, "more than %d blocks within each other", d.space.Nesting)
			return
		}
		if op == opIf {
			p.charge(1)
		}
		p.slots += d.space.slots(in.kind)
		f := frame{op: op, segment: p.current, dead: p.dead, at: in.at, farthest: len(p.frames)}
		switch op {
		case opLoop:
			p.loops = append(p.loops, loop{parent: p.loop, from: len(p.accesses)})
			p.loop = len(p.loops) - 1
			f.loop = p.loop
			p.begin(d.At, p.current)
			p.segments[p.current].header = p.loop
		case opIf:
			p.begin(d.At, p.current)
		}
		p.frames = append(p.frames, f)
	case opElse:
		f := &p.frames[len(p.frames)-1]
		if f.op != opIf || f.otherway {
			d.Fail(in.at, "else without an if")
			return
		}
		// Both ways lead to the end: it is reached from another place than the one before it.
		f.otherway, f.branched = true, f.branched || !p.dead
		p.dead = f.dead
		p.begin(d.At, f.segment)
	case opEnd:
		p.end(d)
	case opBr:
		p.charge(1)
		p.branch(d, in.at, in.a, false)
		p.dead = true
	case opBrIf:
		p.charge(1)
		p.branch(d, in.at, in.a, false)
		p.begin(d.At, p.current)
	case opBrTable:
		p.charge(2)
		for _, label := range d.targets {
			p.branch(d, in.at, label, true)
		}
		p.dead = true
	case opReturn:
		p.charge(1)
		p.branch(d, in.at, uint32(len(p.frames)-1), false)
		p.dead = true
	case opUnreachable:
		p.charge(1)
		p.dead = true
	default:
		p.plain(d, in)
	}
}

// plain takes in an instruction after which the next one follows.
func (p *plan) plain(d *decoder, in *instruction) {
	cost := int64(1)
	slow := false // visits the host, or takes as long as it is told to
	switch op := in.op; {
	case op == 0x01: // nop
		cost = 0
	case op == opCall && int(in.a) < d.space.Imported:
		cost, slow = hostCost, true
	case op == opCall:
		p.calls, cost = true, callCost
		if leaf := d.space.leaf(in.a); leaf > 0 {
			cost += leaf
		} else {
			p.deep, slow = true, true
		}
	case op == opCallIndirect:
		p.calls, p.deep, slow, cost = true, true, true, indirectCost
	case op == opMemoryGrow, op == opMisc && in.sub == miscTableGrow:
		p.bulk, cost, slow = true, growCost, true
	case op == opMisc && in.bulk():
		p.bulk, slow = true, true
	case op == opLocalGet:
		p.accesses = append(p.accesses, access{local: in.a})
	case op == opLocalSet, op == opLocalTee:
		p.accesses = append(p.accesses, access{local: in.a, set: true})
		p.assign(in.a, in.at)
	}
	p.slots += d.produces(in)
	p.vectors = p.vectors || in.op == opVector
	if slow && p.loop >= 0 {
		p.loops[p.loop].slow = true
	}
	p.charge(cost)
}

// assign counts the values that an assignment makes: one, and one where each of the open blocks begins or ends that the local
// was not assigned in already, because there the ways meet on which it differs.
func (p *plan) assign(local uint32, at int) {
	before := p.assigned[local]
	p.assigned[local] = at
	known := sort.Search(len(p.frames), func(i int) bool { return p.frames[i].at >= before })
	p.slots += 1 + len(p.frames) - known
}

// produces is how many slots of a stack what an instruction makes or hands on may take. Local variables are counted where
// they are assigned.
func (d *decoder) produces(in *instruction) int {
	var t Type
	switch op := in.op; {
	case op == opCall:
		t = d.space.Types[d.space.Calls[in.a]]
	case op == opCallIndirect:
		t = d.space.Types[in.a]
	case op >= opLoad && op < opStore, op >= opI32Const && op <= opLastNumeric, op == opGlobalGet, op == opSelect, op == opSelectType:
		return 1
	case op == opVector:
		return 1
	default:
		return 0
	}
	return len(t.Params) + 2*len(t.Results)
}

// slots is how many values a block of that type takes and leaves.
func (s *Space) slots(kind blockType) int {
	switch {
	case kind.index >= 0:
		return len(s.Types[kind.index].Params) + len(s.Types[kind.index].Results)
	case kind.short == emptyBlock:
		return 0
	}
	return 1
}

// bulk tells whether a misc instruction takes as long as its length operand says.
func (in *instruction) bulk() bool {
	switch in.sub {
	case miscMemoryInit, miscMemoryCopy, miscMemoryFill, miscTableInit, miscTableCopy, miscTableFill:
		return true
	}
	return false
}

func (p *plan) charge(cost int64) {
	if !p.dead {
		p.segments[p.current].cost += cost
	}
}

func (p *plan) branch(d *decoder, at int, label uint32, table bool) {
	if int64(label) >= int64(len(p.frames)) {
		d.Fail(at, "branch to block %d of %d", label, len(p.frames))
		return
	}
	target := len(p.frames) - 1 - int(label)
	f := &p.frames[target]
	f.branched = true
	if f.op == opLoop {
		l := &p.loops[f.loop]
		l.branched, l.table = true, l.table || table
		l.backs++
	}
	p.far(target)
}

// far notes in the innermost open frame what is branched to from it.
func (p *plan) far(target int) {
	f := &p.frames[len(p.frames)-1]
	f.farthest = min(f.farthest, target)
}

func (p *plan) end(d *decoder) {
	f := p.frames[len(p.frames)-1]
	p.frames = p.frames[:len(p.frames)-1]
	if len(p.frames) > 0 {
		p.far(f.farthest)
	}
	stays := f.farthest >= len(p.frames) // all ways lead to the end
	switch {
	case f.op == opLoop:
		inner := &p.loops[p.loop]
		inner.to = len(p.accesses)
		if p.loop = inner.parent; p.loop >= 0 {
			outer := &p.loops[p.loop]
			outer.nests, outer.slow = true, outer.slow || inner.slow
		}
		if !p.dead { // left once, however often it ran
			p.begin(d.At, f.segment)
			p.segments[p.current].always = stays
		}
	case f.branched || f.op == opIf && !f.otherway:
		p.dead = f.dead
		p.begin(d.At, f.segment)
		p.segments[p.current].always = stays
	}
}

// begin closes the open segment and opens one at that place, whose dominator is given.
func (p *plan) begin(at, dominator int) {
	p.close()
	p.segments = append(p.segments, segmentOf{at: at, payer: dominator, header: -1})
	p.current = len(p.segments) - 1
}

// close decides who is charged for the open segment: the payer of its dominator while that has slack, or itself.
func (p *plan) close() {
	s := &p.segments[p.current]
	if p.current == 0 {
		return
	}
	dominator := p.segments[s.payer].payer
	payer := &p.segments[dominator]
	always := s.always && dominator == s.payer
	switch {
	case s.header >= 0:
		s.payer = p.current
	case always:
		payer.cost += s.cost
		s.payer = dominator
	case payer.spread+s.cost <= slack+payer.cost-payer.spread:
		payer.cost += s.cost
		payer.spread += s.cost
		s.payer = dominator
	default:
		s.payer = p.current
	}
}

// finish decides what can be decided only when the whole body is known.
func (p *plan) finish(kind Type, locals int) {
	p.close()
	for i := range p.segments {
		if p.segments[i].payer == i {
			p.fuel += p.segments[i].cost
		}
	}
	for i := range p.loops { // an outer loop stands before its inner ones
		l := &p.loops[i]
		l.tight = l.branched && !l.slow
		inside := l.parent >= 0 && p.loops[l.parent].inside
		l.root, l.inside = l.tight && !inside, l.tight || inside
	}
	p.weight = p.weigh(kind, locals)
}

// leaf tells whether the body is so short that its callers are charged for it.
func (p *plan) leaf() bool {
	return !p.calls && !p.bulk && len(p.loops) == 0 && p.fuel <= leafCost
}

// leafCost is what a leaf costs, 0 for what is none.
func (p *plan) leafCost() uint8 {
	if p.leaf() {
		return uint8(p.fuel)
	}
	return 0
}

// short tells whether the function's entry needs no check: going once through it all takes less than a check is there for.
func (p *plan) short() bool {
	return !p.deep && !p.bulk && p.fuel <= shortCost
}

// weigh is how many frames the function counts as: one, and one for each frameSlots values that it may have to keep on the
// engine's stack, which gives every value a place of its own. What is counted here are more than there are, so that a frame
// that counts as one has less than 2 KiB.
func (p *plan) weigh(kind Type, locals int) int {
	slots := p.slots + locals + len(kind.Params) + 2*len(kind.Results)
	if p.vectors {
		slots *= 2
	}
	return min(1+slots/frameSlots, maxWeight)
}
