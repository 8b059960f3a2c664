package admission

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
	typeI32    = 0x7f
	typeI64    = 0x7e
	typeF32    = 0x7d
	typeF64    = 0x7c
	typeFunc   = 0x70
	typeExtern = 0x6f
)

// proposals names what is beyond the core specification 2.0, by opcode.
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
	reader
	m       *Module
	locals  int
	targets []uint32 // labels of the last br_table, the default at the end
}

// next reads an instruction. Labels are not checked: that is for who counts the blocks.
func (d *decoder) next(in *instruction) {
	*in = instruction{at: d.at}
	in.op = d.octet()
	switch op := in.op; {
	case op == opBlock, op == opLoop, op == opIf:
		in.kind = d.blockType()
	case op == opBr, op == opBrIf:
		in.a = d.u32()
	case op == opBrTable:
		n := d.count("branch targets", 1, maxTargets)
		d.targets = d.targets[:0]
		for range n + 1 {
			d.targets = append(d.targets, d.u32())
		}
	case op == opCall, op == opRefFunc:
		in.a = d.index("function", d.m.functions())
	case op == opCallIndirect:
		in.a = d.index("type", len(d.m.types))
		in.b = d.index("table", len(d.m.tables))
	case op == opSelectType:
		if n := d.u32(); n != 1 {
			d.fail(in.at, "select of %d types", n)
			return
		}
		in.raw = d.take(1)
		if d.err == nil {
			d.m.valueType(&d.reader, in.at+2, in.raw[0])
		}
	case op >= opLocalGet && op <= opLocalTee:
		in.a = d.index("local", d.locals)
	case op == opGlobalGet, op == opGlobalSet:
		in.a = d.index("global", len(d.m.globals))
	case op == opTableGet, op == opTableSet:
		in.a = d.index("table", len(d.m.tables))
	case op >= opLoad && op <= opStore64:
		d.memoryArgument(in)
	case op == opMemorySize, op == opMemoryGrow:
		d.zero()
	case op == opI32Const:
		in.long = d.signed(32)
	case op == opI64Const:
		in.long = d.signed(64)
	case op == opF32Const:
		in.raw = d.take(4)
	case op == opF64Const:
		in.raw = d.take(8)
	case op == opRefNull:
		in.raw = d.take(1)
		if d.err == nil && in.raw[0] != typeFunc && in.raw[0] != typeExtern {
			d.fail(in.at, "ref.null of type 0x%02x, which needs typed function references", in.raw[0])
		}
	case op == opMisc:
		d.misc(in)
	case op == opVector:
		d.vector(in)
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == 0x1a, op == opSelect, op > opF64Const && op <= opLastNumeric, op == opRefIsNull:
	default:
		if name := proposal(op); name != "" {
			d.fail(in.at, "opcode 0x%02x is of the proposal %s, which is not supported", op, name)
			return
		}
		d.fail(in.at, "opcode 0x%02x does not exist", op)
	}
}

// blockType reads a number of 33 bits with a sign: short forms are negative ones of a single octet.
func (d *decoder) blockType() blockType {
	start := d.at
	v := d.signed(33)
	switch {
	case d.err != nil:
	case v >= 0 && v < int64(len(d.m.types)):
		return blockType{index: int32(v)}
	case v >= 0:
		d.fail(start, "type %d of %d does not exist", v, len(d.m.types))
	case v < -64:
		d.fail(start, "block type %d does not exist", v)
	default:
		short := byte(v) & 0x7f
		if short != emptyBlock {
			d.m.valueType(&d.reader, start, short)
		}
		return blockType{index: -1, short: short}
	}
	return blockType{index: -1, short: emptyBlock}
}

func (d *decoder) memoryArgument(in *instruction) {
	if in.a = d.u32(); in.a > 4 {
		d.fail(in.at, "alignment of 2^%d octets, more than any instruction may have", in.a)
	}
	in.b = d.u32()
}

// zero reads the octet in whose place other proposals put the index of a memory.
func (d *decoder) zero() {
	start := d.at
	if d.octet() != 0 {
		d.fail(start, "a memory other than the first is named, which needs multiple memories")
	}
}

func (d *decoder) misc(in *instruction) {
	in.sub = d.u32()
	switch in.sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // truncation that saturates
	case miscMemoryInit:
		in.a = d.index("data segment", d.m.segments)
		d.zero()
	case miscDataDrop:
		in.a = d.index("data segment", d.m.segments)
	case miscMemoryCopy:
		d.zero()
		d.zero()
	case miscMemoryFill:
		d.zero()
	case miscTableInit:
		in.a = d.index("element segment", d.m.elements)
		in.b = d.index("table", len(d.m.tables))
	case miscElemDrop:
		in.a = d.index("element segment", d.m.elements)
	case miscTableCopy:
		in.a = d.index("table", len(d.m.tables))
		in.b = d.index("table", len(d.m.tables))
	case miscTableGrow, miscTableSize, miscTableFill:
		in.a = d.index("table", len(d.m.tables))
	default:
		d.fail(in.at, "opcode 0xfc %d does not exist", in.sub)
	}
}

// vector reads the rest of a vector instruction. The engine takes the one octet after 0xfd for the opcode, where the
// specification has a LEB128 number: they agree on its shortest form only, and no other is let through.
func (d *decoder) vector(in *instruction) {
	start := d.at
	in.sub = d.u32()
	if length := d.at - start; d.err == nil && length > 1 && (in.sub < 0x80 || length > 2) {
		d.fail(in.at, "opcode of a vector instruction is not in its shortest form")
		return
	}
	switch op := in.sub; {
	case op <= vectorStore, op == vectorLoadZero, op == vectorLoadZero2:
		d.memoryArgument(in)
	case op == vectorConst, op == vectorShuffle:
		in.raw = d.take(16)
	case op >= vectorExtract && op <= vectorReplace:
		in.lane = d.octet()
	case op >= vectorLoadLane && op <= vectorStoreLane:
		d.memoryArgument(in)
		in.lane = d.octet()
	case op > 0xff:
		d.fail(in.at, "opcode 0xfd %d is of the proposal relaxed SIMD, which is not supported", op)
	default:
		switch op {
		case 0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee:
			d.fail(in.at, "opcode 0xfd %d does not exist", op)
		}
	}
}

// put writes an instruction whose labels need no change, every number in its shortest form, with functions renumbered. It
// is not for blocks and branches.
func (d *decoder) put(w *writer, in *instruction) {
	w.octet(in.op)
	switch op := in.op; {
	case op == opCall, op == opRefFunc:
		w.u32(d.m.renumber(in.a))
	case op == opCallIndirect:
		w.u32(in.a)
		w.u32(in.b)
	case op == opSelectType:
		w.octet(1)
		w.octet(in.raw...)
	case op >= opLocalGet && op <= opTableSet:
		w.u32(in.a)
	case op >= opLoad && op <= opStore64:
		w.u32(in.a)
		w.u32(in.b)
	case op == opMemorySize, op == opMemoryGrow:
		w.octet(0)
	case op == opI32Const, op == opI64Const:
		w.signed(in.long)
	case op == opF32Const, op == opF64Const, op == opRefNull:
		w.octet(in.raw...)
	case op == opMisc:
		w.u32(in.sub)
		switch in.sub {
		case miscMemoryInit:
			w.u32(in.a)
			w.octet(0)
		case miscMemoryCopy:
			w.octet(0, 0)
		case miscMemoryFill:
			w.octet(0)
		case miscTableInit, miscTableCopy:
			w.u32(in.a)
			w.u32(in.b)
		case miscDataDrop, miscElemDrop, miscTableGrow, miscTableSize, miscTableFill:
			w.u32(in.a)
		}
	case op == opVector:
		w.u32(in.sub)
		switch sub := in.sub; {
		case sub <= vectorStore, sub == vectorLoadZero, sub == vectorLoadZero2:
			w.u32(in.a)
			w.u32(in.b)
		case sub == vectorConst, sub == vectorShuffle:
			w.octet(in.raw...)
		case sub >= vectorExtract && sub <= vectorReplace:
			w.octet(in.lane)
		case sub >= vectorLoadLane && sub <= vectorStoreLane:
			w.u32(in.a)
			w.u32(in.b)
			w.octet(in.lane)
		}
	}
}
