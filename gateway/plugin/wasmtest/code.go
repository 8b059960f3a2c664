package wasmtest

// Code is a piece of a function body, encoded. Pieces are joined with +.
type Code string

// Instructions without immediates. Those that take memory are functions below.
const (
	Unreachable Code = "\x00"
	Nop         Code = "\x01"
	Else        Code = "\x05"
	End         Code = "\x0b"
	Return      Code = "\x0f"
	Drop        Code = "\x1a"
	Select      Code = "\x1b"

	I32Eqz Code = "\x45"
	I32Eq  Code = "\x46"
	I32Ne  Code = "\x47"
	I32LtS Code = "\x48"
	I32LtU Code = "\x49"
	I32GtS Code = "\x4a"
	I32GtU Code = "\x4b"
	I32LeU Code = "\x4d"
	I32GeU Code = "\x4f"
	I64Eqz Code = "\x50"
	I64Eq  Code = "\x51"
	I64Ne  Code = "\x52"
	I64LtS Code = "\x53"
	I64LtU Code = "\x54"
	I64GtS Code = "\x55"
	I64GtU Code = "\x56"

	I32Clz    Code = "\x67"
	I32Ctz    Code = "\x68"
	I32Popcnt Code = "\x69"
	I32Add    Code = "\x6a"
	I32Sub    Code = "\x6b"
	I32Mul    Code = "\x6c"
	I32DivS   Code = "\x6d"
	I32DivU   Code = "\x6e"
	I32RemU   Code = "\x70"
	I32And    Code = "\x71"
	I32Or     Code = "\x72"
	I32Xor    Code = "\x73"
	I32Shl    Code = "\x74"
	I32ShrS   Code = "\x75"
	I32ShrU   Code = "\x76"
	I32Rotl   Code = "\x77"
	I64Add    Code = "\x7c"
	I64Sub    Code = "\x7d"
	I64Mul    Code = "\x7e"
	I64DivU   Code = "\x80"
	I64RemU   Code = "\x82"
	I64And    Code = "\x83"
	I64Or     Code = "\x84"
	I64Xor    Code = "\x85"
	I64Shl    Code = "\x86"
	I64ShrU   Code = "\x88"
	F64Add    Code = "\xa0"
	F64Mul    Code = "\xa2"

	I32WrapI64    Code = "\xa7"
	I64ExtendI32S Code = "\xac"
	I64ExtendI32U Code = "\xad"

	MemorySize Code = "\x3f\x00"
	MemoryGrow Code = "\x40\x00"
	MemoryCopy Code = "\xfc\x0a\x00\x00"
	MemoryFill Code = "\xfc\x0b\x00"
	RefIsNull  Code = "\xd1"
)

// Void is the type of a block without params and results. A block with one result has the result's type: Result(I32).
const Void Code = "\x40"

// Result is the type of a block without params and with one result.
func Result(t Type) Code { return octet(t) }

// BlockType is the type of a block that is the signature at an index of Module.Types.
func BlockType(index uint32) Code { return S64(int64(index)) }

// Block is a block; Br(0) within leaves it.
func Block(typ Code, body ...Code) Code { return "\x02" + typ + Join(body...) + End }

// Loop is a loop; Br(0) within begins it anew.
func Loop(typ Code, body ...Code) Code { return "\x03" + typ + Join(body...) + End }

// If takes an i32. The body may hold Else.
func If(typ Code, body ...Code) Code { return "\x04" + typ + Join(body...) + End }

// Join is the pieces one after the other.
func Join(pieces ...Code) Code {
	var b []byte
	for _, c := range pieces {
		b = append(b, c...)
	}
	return Code(b)
}

// Repeat is a piece n times.
func Repeat(n int, c Code) Code {
	b := make([]byte, 0, n*len(c))
	for range n {
		b = append(b, c...)
	}
	return Code(b)
}

// Instructions with immediates.

// Br branches.
func Br(depth uint32) Code { return "\x0c" + U32(depth) }

// BrIf branches if the i32 is not 0.
func BrIf(depth uint32) Code { return "\x0d" + U32(depth) }

// BrTable branches by an i32 to one of depths, the last of which is for all others.
func BrTable(depths ...uint32) Code {
	last := len(depths) - 1
	return "\x0e" + Vector(each(depths[:last], U32)...) + U32(depths[last])
}

// Call calls a function by its index.
func Call(function uint32) Code { return "\x10" + U32(function) }

// CallIndirect calls what is in a table at an i32.
func CallIndirect(typ, table uint32) Code { return "\x11" + U32(typ) + U32(table) }

// ReturnCall is the tail call of a proposal.
func ReturnCall(function uint32) Code { return "\x12" + U32(function) }

// LocalGet reads a local.
func LocalGet(n uint32) Code { return "\x20" + U32(n) }

// LocalSet writes a local.
func LocalSet(n uint32) Code { return "\x21" + U32(n) }

// LocalTee writes a local and keeps the value.
func LocalTee(n uint32) Code { return "\x22" + U32(n) }

// GlobalGet reads a global.
func GlobalGet(n uint32) Code { return "\x23" + U32(n) }

// GlobalSet writes a global.
func GlobalSet(n uint32) Code { return "\x24" + U32(n) }

// TableGet reads an entry of a table.
func TableGet(table uint32) Code { return "\x25" + U32(table) }

// TableSet writes an entry of a table.
func TableSet(table uint32) Code { return "\x26" + U32(table) }

// TableGrow makes a table larger: reference, i32 -> i32.
func TableGrow(table uint32) Code { return "\xfc\x0f" + U32(table) }

// TableSize is the number of a table's entries.
func TableSize(table uint32) Code { return "\xfc\x10" + U32(table) }

// TableFill writes a reference to several entries: i32, reference, i32.
func TableFill(table uint32) Code { return "\xfc\x11" + U32(table) }

// TableCopy copies entries between tables: i32 to, i32 from, i32 count.
func TableCopy(to, from uint32) Code { return "\xfc\x0e" + U32(to) + U32(from) }

// TableInit copies entries from an element segment: i32 to, i32 from, i32 count.
func TableInit(segment, table uint32) Code { return "\xfc\x0c" + U32(segment) + U32(table) }

// ElemDrop drops an element segment.
func ElemDrop(segment uint32) Code { return "\xfc\x0d" + U32(segment) }

// MemoryInit copies from a data segment: i32 to, i32 from, i32 count.
func MemoryInit(segment uint32) Code { return "\xfc\x08" + U32(segment) + "\x00" }

// DataDrop drops a data segment.
func DataDrop(segment uint32) Code { return "\xfc\x09" + U32(segment) }

// RefNull is the null reference of a type.
func RefNull(t Type) Code { return "\xd0" + octet(t) }

// RefFunc is a reference to a function.
func RefFunc(function uint32) Code { return "\xd2" + U32(function) }

// I32Const is a constant.
func I32Const(n int32) Code { return "\x41" + S64(int64(n)) }

// I64Const is a constant.
func I64Const(n int64) Code { return "\x42" + S64(n) }

// F32Const is a constant.
func F32Const(f float32) Code { return "\x43" + float32Code(f) }

// F64Const is a constant.
func F64Const(f float64) Code { return "\x44" + float64Code(f) }

// I32Load reads four octets at an i32 and an offset.
func I32Load(offset uint32) Code { return "\x28\x02" + U32(offset) }

// I32Load8U reads an octet.
func I32Load8U(offset uint32) Code { return "\x2d\x00" + U32(offset) }

// I64Load reads eight octets.
func I64Load(offset uint32) Code { return "\x29\x03" + U32(offset) }

// I32Store writes four octets: i32 address, i32.
func I32Store(offset uint32) Code { return "\x36\x02" + U32(offset) }

// I32Store8 writes an octet.
func I32Store8(offset uint32) Code { return "\x3a\x00" + U32(offset) }

// I64Store writes eight octets: i32 address, i64.
func I64Store(offset uint32) Code { return "\x37\x03" + U32(offset) }
