package body

// Opcodes that mean something to the rewriter (core specification, section 5.4, with the vector instructions of 2.0).
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelect       = 0x1b
	opSelectType   = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opLoad         = 0x28 // the first of the loads and stores
	opStore        = 0x36 // the first of the stores
	opStore64      = 0x3e // the last of them
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Ne        = 0x47
	opI64LtS       = 0x53
	opI32LtS       = 0x48
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opExtendU      = 0xad // i64.extend_i32_u
	opLastNumeric  = 0xc4
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd

	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17

	vectorStore     = 11 // the last of the loads and stores without a lane
	vectorConst     = 12
	vectorShuffle   = 13
	vectorExtract   = 21 // the first that names a lane
	vectorReplace   = 34 // the last of them
	vectorLoadLane  = 84
	vectorStoreLane = 91
	vectorLoadZero  = 92 // v128.load32_zero
	vectorLoadZero2 = 93

	emptyBlock = 0x40

	maxTargets  = 16384  // of a br_table
	sectionCode = "code" // in errors

	typeF32 = 0x7d
	typeF64 = 0x7c
)

// Value types that are known by name elsewhere.
const (
	I32       = 0x7f
	I64       = 0x7e
	FuncRef   = 0x70
	ExternRef = 0x6f
)

// proposal names what is beyond the core specification 2.0, by opcode.
func proposal(op byte) string {
	switch {
	case op >= 0x06 && op <= 0x0a, op == 0x18, op == 0x19, op == 0x1f:
		return "exception handling"
	case op == 0x12, op == 0x13:
		return "tail calls"
	case op >= 0x14 && op <= 0x17, op >= 0xd3 && op <= 0xd6:
		return "typed function references"
	case op == 0xfb:
		return "garbage collection"
	case op == 0xfe:
		return "threads"
	}
	return ""
}

// instruction is one of a function body. Its immediates are numbers; those of br_table stand in the decoder.
type instruction struct {
	at   int // in the module
	op   byte
	sub  uint32 // of opMisc and opVector
	a, b uint32 // indices, memory arguments, in the order of the binary format
	long int64  // the value of i32.const and i64.const
	raw  []byte // of f32.const, f64.const, v128.const and i8x16.shuffle; the types of select
	lane byte
	// kind is the type of a block.
	kind blockType
}

// blockType is what a block takes and leaves: index is that of a function type, or negative for one of the short forms.
type blockType struct {
	index int32
	short byte // emptyBlock or a value type, when index is negative
}

// decoder reads instructions. m says what there is to be named.
type decoder struct {
	Reader
	space   *Space
	locals  int
	targets []uint32 // labels of the last br_table, the default at the end
}

// next reads an instruction. Labels are not checked: that is for who counts the blocks.
func (d *decoder) next(in *instruction) {
	*in = instruction{at: d.At}
	in.op = d.Octet()
	switch op := in.op; {
	case op == opBlock, op == opLoop, op == opIf:
		in.kind = d.blockType()
	case op == opBr, op == opBrIf:
		in.a = d.U32()
	case op == opBrTable:
		n := d.Count("branch targets", 1, maxTargets)
		d.targets = d.targets[:0]
		for range n + 1 {
			d.targets = append(d.targets, d.U32())
		}
	case op == opCall, op == opRefFunc:
		in.a = d.Index("function", len(d.space.Calls))
	case op == opCallIndirect:
		in.a = d.Index("type", len(d.space.Types))
		in.b = d.Index("table", d.space.Tables)
	case op == opSelectType:
		if n := d.U32(); n != 1 {
			d.Fail(in.at, "select of %d types", n)
			return
		}
		in.raw = d.Take(1)
		if d.Err == nil {
			d.ValueType(in.at+2, in.raw[0])
		}
	case op >= opLocalGet && op <= opLocalTee:
		in.a = d.Index("local", d.locals)
	case op == opGlobalGet, op == opGlobalSet:
		in.a = d.Index("global", d.space.Globals)
	case op == opTableGet, op == opTableSet:
		in.a = d.Index("table", d.space.Tables)
	case op >= opLoad && op <= opStore64:
		d.memoryArgument(in)
	case op == opMemorySize, op == opMemoryGrow:
		d.zero()
	case op == opI32Const:
		in.long = d.Signed(32)
	case op == opI64Const:
		in.long = d.Signed(64)
	case op == opF32Const:
		in.raw = d.Take(4)
	case op == opF64Const:
		in.raw = d.Take(8)
	case op == opRefNull:
		in.raw = d.Take(1)
		if d.Err == nil && in.raw[0] != FuncRef && in.raw[0] != ExternRef {
			d.Fail(in.at, "ref.null of type 0x%02x, which needs typed function references", in.raw[0])
		}
	case op == opMisc:
		d.misc(in)
	case op == opVector:
		d.vector(in)
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == 0x1a, op == opSelect, op > opF64Const && op <= opLastNumeric, op == opRefIsNull:
	default:
		if name := proposal(op); name != "" {
			d.Fail(in.at, "opcode 0x%02x is of the proposal %s, which is not supported", op, name)
			return
		}
		d.Fail(in.at, "opcode 0x%02x does not exist", op)
	}
}

// blockType reads a number of 33 bits with a sign: short forms are negative ones of a single octet.
func (d *decoder) blockType() blockType {
	start := d.At
	v := d.Signed(33)
	switch {
	case d.Err != nil:
	case v >= 0 && v < int64(len(d.space.Types)):
		return blockType{index: int32(v)}
	case v >= 0:
		d.Fail(start, "type %d of %d does not exist", v, len(d.space.Types))
	case v < -64:
		d.Fail(start, "block type %d does not exist", v)
	default:
		short := byte(v) & 0x7f
		if short != emptyBlock {
			d.ValueType(start, short)
		}
		return blockType{index: -1, short: short}
	}
	return blockType{index: -1, short: emptyBlock}
}

func (d *decoder) memoryArgument(in *instruction) {
	if in.a = d.U32(); in.a > 4 {
		d.Fail(in.at, "alignment of 2^%d octets, more than any instruction may have", in.a)
	}
	in.b = d.U32()
}

// zero reads the octet in whose place other proposals put the index of a memory.
func (d *decoder) zero() {
	start := d.At
	if d.Octet() != 0 {
		d.Fail(start, "a memory other than the first is named, which needs multiple memories")
	}
}

func (d *decoder) misc(in *instruction) {
	in.sub = d.U32()
	switch in.sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // truncation that saturates
	case miscMemoryInit:
		in.a = d.Index("data segment", d.space.Data)
		d.zero()
	case miscDataDrop:
		in.a = d.Index("data segment", d.space.Data)
	case miscMemoryCopy:
		d.zero()
		d.zero()
	case miscMemoryFill:
		d.zero()
	case miscTableInit:
		in.a = d.Index("element segment", d.space.Elements)
		in.b = d.Index("table", d.space.Tables)
	case miscElemDrop:
		in.a = d.Index("element segment", d.space.Elements)
	case miscTableCopy:
		in.a = d.Index("table", d.space.Tables)
		in.b = d.Index("table", d.space.Tables)
	case miscTableGrow, miscTableSize, miscTableFill:
		in.a = d.Index("table", d.space.Tables)
	default:
		d.Fail(in.at, "opcode 0xfc %d does not exist", in.sub)
	}
}

// vector reads the rest of a vector instruction. The engine takes the one octet after 0xfd for the opcode, where the
// specification has a LEB128 number: they agree on its shortest form only, and no other is let through.
func (d *decoder) vector(in *instruction) {
	start := d.At
	in.sub = d.U32()
	if length := d.At - start; d.Err == nil && length > 1 && (in.sub < 0x80 || length > 2) {
		d.Fail(in.at, "opcode of a vector instruction is not in its shortest form")
		return
	}
	switch op := in.sub; {
	case op <= vectorStore, op == vectorLoadZero, op == vectorLoadZero2:
		d.memoryArgument(in)
	case op == vectorConst, op == vectorShuffle:
		in.raw = d.Take(16)
	case op >= vectorExtract && op <= vectorReplace:
		in.lane = d.Octet()
	case op >= vectorLoadLane && op <= vectorStoreLane:
		d.memoryArgument(in)
		in.lane = d.Octet()
	case op > 0xff:
		d.Fail(in.at, "opcode 0xfd %d is of the proposal relaxed SIMD, which is not supported", op)
	default:
		switch op {
		case 0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee:
			d.Fail(in.at, "opcode 0xfd %d does not exist", op)
		}
	}
}

// put writes an instruction whose labels need no change, every number in its shortest form, with functions renumbered. It
// is not for blocks and branches.
func (d *decoder) put(w *Writer, in *instruction) {
	w.Octet(in.op)
	switch op := in.op; {
	case op == opCall, op == opRefFunc:
		w.U32(d.space.Renumber(in.a))
	case op == opCallIndirect:
		w.U32(in.a)
		w.U32(in.b)
	case op == opSelectType:
		w.Octet(1)
		w.Octet(in.raw...)
	case op >= opLocalGet && op <= opTableSet:
		w.U32(in.a)
	case op >= opLoad && op <= opStore64:
		w.U32(in.a)
		w.U32(in.b)
	case op == opMemorySize, op == opMemoryGrow:
		w.Octet(0)
	case op == opI32Const, op == opI64Const:
		w.Signed(in.long)
	case op == opF32Const, op == opF64Const, op == opRefNull:
		w.Octet(in.raw...)
	case op == opMisc:
		w.U32(in.sub)
		switch in.sub {
		case miscMemoryInit:
			w.U32(in.a)
			w.Octet(0)
		case miscMemoryCopy:
			w.Octet(0, 0)
		case miscMemoryFill:
			w.Octet(0)
		case miscTableInit, miscTableCopy:
			w.U32(in.a)
			w.U32(in.b)
		case miscDataDrop, miscElemDrop, miscTableGrow, miscTableSize, miscTableFill:
			w.U32(in.a)
		}
	case op == opVector:
		w.U32(in.sub)
		switch sub := in.sub; {
		case sub <= vectorStore, sub == vectorLoadZero, sub == vectorLoadZero2:
			w.U32(in.a)
			w.U32(in.b)
		case sub == vectorConst, sub == vectorShuffle:
			w.Octet(in.raw...)
		case sub >= vectorExtract && sub <= vectorReplace:
			w.Octet(in.lane)
		case sub >= vectorLoadLane && sub <= vectorStoreLane:
			w.U32(in.a)
			w.U32(in.b)
			w.Octet(in.lane)
		}
	}
}

// TypeName is empty for what is no value type of the core specification 2.0.
func TypeName(t byte) string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case typeF32:
		return "f32"
	case typeF64:
		return "f64"
	case 0x7b:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return ""
}

// ValueType refuses what is no value type.
func (r *Reader) ValueType(at int, t byte) {
	if TypeName(t) != "" {
		return
	}
	switch t {
	case 0x63, 0x64:
		r.Fail(at, "type 0x%02x is of the proposal typed function references, which is not supported", t)
	case 0x69, 0x74:
		r.Fail(at, "type 0x%02x is of the proposal exception handling, which is not supported", t)
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73:
		r.Fail(at, "type 0x%02x is of the proposal garbage collection, which is not supported", t)
	default:
		r.Fail(at, "type 0x%02x does not exist", t)
	}
}

// Constant reads a constant expression: one instruction and an end, for more is of the proposal extended constant
// expressions. globals says how many globals it may name.
func (s *Space) Constant(r *Reader, w *Writer, globals int) {
	at := r.At
	d := decoder{Reader: *r, space: s}
	var in instruction
	d.next(&in)
	switch {
	case d.Err != nil:
	case in.op == opGlobalGet && int(in.a) >= globals:
		d.Fail(at, "global %d can not be named here", in.a)
	case in.op == opI32Const, in.op == opI64Const, in.op == opF32Const, in.op == opF64Const, in.op == opGlobalGet,
		in.op == opRefNull, in.op == opRefFunc, in.op == opVector && in.sub == vectorConst:
		d.put(w, &in)
	default:
		d.Fail(at, "opcode 0x%02x is not constant", in.op)
	}
	if end := d.Octet(); end != opEnd && d.Err == nil {
		d.Fail(at, "constant expression of several instructions is of the proposal extended constant expressions, which is not supported")
	}
	w.Octet(opEnd)
	*r = d.Reader
}
