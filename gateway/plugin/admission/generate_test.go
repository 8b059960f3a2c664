package admission_test

import (
	"math/rand/v2"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// generator writes modules that are valid, end, and do all kinds of things in every shape of control flow.
type generator struct {
	*rand.Rand
	m      *wasmtest.Module
	size   int // statements that may still be written
	locals []wasmtest.Type
	labels []generated
	result []wasmtest.Type
	budget uint32 // the global that ends what does not end by itself
	sums   [2]uint32
}

// generated is an open block: what a branch to it takes.
type generated struct{ takes []wasmtest.Type }

var numbers = []wasmtest.Type{wasmtest.I32, wasmtest.I64, wasmtest.F64}

const generatedFunctions = 5

// generate writes a module whose function "run" takes and returns an i32.
func generate(seed uint64) *wasmtest.Module {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), m: new(wasmtest.Module)}
	m := g.m
	unary := m.Type(wasmtest.Sig(wasmtest.I32).To(wasmtest.I32))
	for range g.IntN(3) {
		m.Imports = append(m.Imports, wasmtest.Import{Module: "host", Name: "note", Type: unary})
	}
	m.Memories = []wasmtest.Limits{{Min: 1, Max: 3}}
	m.Exports = append(m.Exports, wasmtest.Export{Name: "memory", Kind: wasmtest.MemoryKind})
	m.Tables = []wasmtest.Table{{Type: wasmtest.FuncRef, Limits: wasmtest.Limits{Min: 8, Max: 12}}}
	g.budget = m.Global(wasmtest.I32, wasmtest.I32Const(3000))
	g.sums = [2]uint32{m.Global(wasmtest.I32, wasmtest.I32Const(7)), m.Global(wasmtest.I64, wasmtest.I64Const(-7))}
	m.DataCount = true
	m.Put(16, []byte("what stands here is data"))
	m.Data = append(m.Data, wasmtest.Data{Passive: true, Content: []byte("and this is passive")})
	first := m.Next()
	var signatures []wasmtest.Signature
	for i := range generatedFunctions {
		s := wasmtest.Sig(wasmtest.I32).To(wasmtest.I32)
		if i > 0 {
			s = wasmtest.Sig(g.types(4)...).To(g.types(3)...)
		}
		signatures = append(signatures, s)
	}
	element := wasmtest.Element{Offset: wasmtest.I32Const(0)}
	for i, s := range signatures {
		element.Funcs = append(element.Funcs, first+uint32(i))
		export := ""
		if i == 0 {
			export = "run"
		}
		m.Functions = append(m.Functions, wasmtest.Function{Export: export, Type: m.Type(s)})
	}
	m.Elements = []wasmtest.Element{element}
	for i, s := range signatures {
		f := &m.Functions[i]
		g.size = 4 + g.IntN(40)
		g.result = s.Results
		own := g.types(6)
		for _, t := range own {
			f.Locals = append(f.Locals, wasmtest.Locals{Count: 1, Type: t})
		}
		g.locals = append(append([]wasmtest.Type(nil), s.Params...), own...)
		g.labels = []generated{{s.Results}}
		leaf := i >= 3 && g.IntN(2) == 0
		if leaf {
			g.size = 2
		}
		f.Code = g.statements(3, leaf) + g.values(s.Results, 2, leaf)
		if !leaf {
			f.Code = g.spend() + f.Code
		}
	}
	if g.IntN(4) == 0 {
		start := m.Func("", wasmtest.Sig(), wasmtest.I32Const(5)+wasmtest.Call(first)+wasmtest.Drop)
		m.Start = &start
	}
	return m
}

func (g *generator) types(most int) []wasmtest.Type {
	list := make([]wasmtest.Type, g.IntN(most))
	for i := range list {
		list[i] = numbers[g.IntN(len(numbers))]
	}
	return list
}

// spend ends the run when the budget is used up.
func (g *generator) spend() wasmtest.Code {
	return wasmtest.GlobalGet(g.budget) + wasmtest.I32Const(1) + wasmtest.I32Sub + wasmtest.GlobalSet(g.budget) +
		wasmtest.GlobalGet(g.budget) + wasmtest.I32Const(0) + wasmtest.I32LtS + wasmtest.If(wasmtest.Void, wasmtest.Unreachable)
}

func (g *generator) statements(depth int, leaf bool) wasmtest.Code {
	var code wasmtest.Code
	for n := 1 + g.IntN(4); n > 0 && g.size > 0; n-- {
		g.size--
		code += g.statement(depth, leaf)
	}
	return code
}

func (g *generator) within(takes []wasmtest.Type, inner func() wasmtest.Code) wasmtest.Code {
	g.labels = append(g.labels, generated{takes})
	code := inner()
	g.labels = g.labels[:len(g.labels)-1]
	return code
}

func (g *generator) block(params, results []wasmtest.Type) wasmtest.Code {
	switch {
	case len(params) == 0 && len(results) == 0:
		return wasmtest.Void
	case len(params) == 0 && len(results) == 1:
		return wasmtest.Result(results[0])
	}
	return wasmtest.BlockType(g.m.Type(wasmtest.Sig(params...).To(results...)))
}

func (g *generator) drop(types []wasmtest.Type) wasmtest.Code {
	return wasmtest.Repeat(len(types), wasmtest.Drop)
}

func (g *generator) statement(depth int, leaf bool) wasmtest.Code {
	kind := g.IntN(20)
	if depth == 0 {
		kind = g.IntN(5)
	}
	if leaf {
		kind = g.IntN(3)
	}
	switch kind {
	case 0, 1:
		if len(g.locals) == 0 {
			return wasmtest.Nop
		}
		i := g.IntN(len(g.locals))
		return g.value(g.locals[i], depth, leaf) + wasmtest.LocalSet(uint32(i))
	case 2:
		return wasmtest.GlobalGet(g.sums[0]) + g.value(wasmtest.I32, depth, leaf) + wasmtest.I32Add + wasmtest.I32Const(3) + wasmtest.I32Mul + wasmtest.GlobalSet(g.sums[0])
	case 3:
		return g.value(wasmtest.I64, depth, leaf) + wasmtest.GlobalSet(g.sums[1])
	case 4:
		return g.address(depth) + g.value(wasmtest.I64, depth, leaf) + wasmtest.I64Store(uint32(g.IntN(9)))
	case 5:
		results := g.types(3)
		return wasmtest.Block(g.block(nil, results), g.within(results, func() wasmtest.Code {
			return g.statements(depth-1, leaf) + g.values(results, depth-1, leaf)
		})) + g.drop(results)
	case 6, 7, 8: // a loop that spends the budget
		results := g.types(2)
		return wasmtest.Loop(g.block(nil, results), g.within(nil, func() wasmtest.Code {
			code := g.spend() + g.statements(depth-1, leaf)
			if g.IntN(3) > 0 {
				code += g.value(wasmtest.I32, depth-1, leaf) + wasmtest.I32Const(3) + wasmtest.I32And + wasmtest.BrIf(0)
			}
			return code + g.values(results, depth-1, leaf)
		})) + g.drop(results)
	case 9: // a loop with parameters
		params := g.types(3)
		return g.values(params, depth-1, leaf) + wasmtest.Loop(g.block(params, params), g.within(params, func() wasmtest.Code {
			return g.spend() + g.drop(params) + g.statements(depth-1, leaf) + g.values(params, depth-1, leaf) +
				g.value(wasmtest.I32, 0, leaf) + wasmtest.I32Const(1) + wasmtest.I32And + wasmtest.BrIf(0)
		})) + g.drop(params)
	case 10: // a loop that counts
		i := uint32(len(g.locals))
		for n, t := range g.locals {
			if t == wasmtest.I32 {
				i = uint32(n)
			}
		}
		if i == uint32(len(g.locals)) {
			return wasmtest.Nop
		}
		return wasmtest.I32Const(int32(g.IntN(90))) + wasmtest.LocalSet(i) + wasmtest.Loop(wasmtest.Void,
			wasmtest.LocalGet(i), wasmtest.GlobalGet(g.sums[0]), wasmtest.I32Add, wasmtest.GlobalSet(g.sums[0]),
			wasmtest.LocalGet(i), wasmtest.I32Const(1), wasmtest.I32Sub, wasmtest.LocalTee(i), wasmtest.I32Const(0), wasmtest.I32GtS, wasmtest.BrIf(0))
	case 11, 12:
		results := g.types(2)
		otherwise := wasmtest.Code("")
		if len(results) > 0 || g.IntN(2) == 0 {
			otherwise = wasmtest.Else + g.within(results, func() wasmtest.Code {
				return g.statements(depth-1, leaf) + g.values(results, depth-1, leaf)
			})
		}
		then := g.within(results, func() wasmtest.Code {
			return g.statements(depth-1, leaf) + g.values(results, depth-1, leaf)
		})
		return g.value(wasmtest.I32, depth-1, leaf) + wasmtest.If(g.block(nil, results), then+otherwise) + g.drop(results)
	case 13: // br_if, wherever to
		n := g.IntN(len(g.labels))
		takes := g.labels[len(g.labels)-1-n].takes
		return g.values(takes, depth-1, leaf) + g.value(wasmtest.I32, depth-1, leaf) + wasmtest.BrIf(uint32(n)) + g.drop(takes)
	case 14: // br or return, in a block so that what follows is not dead, with dead code of its own
		return g.value(wasmtest.I32, depth-1, leaf) + wasmtest.If(wasmtest.Void, g.within(nil, func() wasmtest.Code {
			n := g.IntN(len(g.labels) + 1)
			if n == len(g.labels) {
				return g.values(g.result, depth-1, leaf) + wasmtest.Return + g.statements(depth-1, leaf)
			}
			return g.values(g.labels[len(g.labels)-1-n].takes, depth-1, leaf) + wasmtest.Br(uint32(n)) + g.statements(depth-1, leaf)
		}))
	case 15: // br_table among the labels that take nothing
		var labels []uint32
		for n := range g.labels {
			if len(g.labels[len(g.labels)-1-n].takes) == 0 {
				labels = append(labels, uint32(n))
			}
		}
		if len(labels) == 0 {
			return wasmtest.Nop
		}
		var list []uint32
		for range 1 + g.IntN(5) {
			list = append(list, labels[g.IntN(len(labels))])
		}
		return g.value(wasmtest.I32, depth-1, leaf) + wasmtest.If(wasmtest.Void, g.within(nil, func() wasmtest.Code {
			for i := range list {
				list[i]++
			}
			return g.value(wasmtest.I32, depth-1, leaf) + wasmtest.I32Const(7) + wasmtest.I32And + wasmtest.BrTable(list...)
		}))
	case 16:
		return g.call(depth)
	case 17: // in bulk, now and then out of bounds
		length := wasmtest.I32Const(int32(g.IntN(3000)))
		switch g.IntN(4) {
		case 0:
			return g.address(depth) + g.value(wasmtest.I32, 0, leaf) + length + wasmtest.MemoryFill
		case 1:
			return g.address(depth) + g.address(depth) + length + wasmtest.MemoryCopy
		case 2:
			return g.address(depth) + wasmtest.I32Const(2) + wasmtest.I32Const(int32(g.IntN(20))) + wasmtest.MemoryInit(1)
		}
		return wasmtest.I32Const(int32(g.IntN(8))) + wasmtest.I32Const(int32(g.IntN(8))) + wasmtest.I32Const(int32(g.IntN(3))) + wasmtest.TableCopy(0, 0)
	case 18:
		if g.IntN(3) == 0 {
			return wasmtest.RefNull(wasmtest.FuncRef) + wasmtest.I32Const(int32(g.IntN(3))) + wasmtest.TableGrow(0) + wasmtest.Drop
		}
		return wasmtest.I32Const(int32(g.IntN(3))) + wasmtest.MemoryGrow + wasmtest.GlobalGet(g.sums[0]) + wasmtest.I32Add + wasmtest.GlobalSet(g.sums[0])
	}
	if g.IntN(8) == 0 {
		return g.value(wasmtest.I32, depth-1, leaf) + wasmtest.I32Eqz + wasmtest.If(wasmtest.Void, wasmtest.Unreachable)
	}
	return wasmtest.Nop
}

// address is one within memory, nearly always.
func (g *generator) address(depth int) wasmtest.Code {
	if g.IntN(60) == 0 {
		return wasmtest.I32Const(-4)
	}
	return g.value(wasmtest.I32, min(depth, 1), true) + wasmtest.I32Const(0x7fff) + wasmtest.I32And
}

// call calls a function of the module, directly or through the table, or the host, and keeps nothing.
func (g *generator) call(depth int) wasmtest.Code {
	imports := len(g.m.Imports)
	if imports > 0 && g.IntN(4) == 0 {
		return g.value(wasmtest.I32, depth-1, false) + wasmtest.Call(uint32(g.IntN(imports))) + wasmtest.Drop
	}
	i := g.IntN(generatedFunctions)
	s := g.m.Types[g.m.Functions[i].Type]
	code := g.values(s.Params, depth-1, false)
	if g.IntN(3) == 0 {
		return code + wasmtest.I32Const(int32(i)) + wasmtest.CallIndirect(g.m.Functions[i].Type, 0) + g.drop(s.Results)
	}
	return code + wasmtest.Call(uint32(imports+i)) + g.drop(s.Results)
}

func (g *generator) values(types []wasmtest.Type, depth int, leaf bool) wasmtest.Code {
	var code wasmtest.Code
	for _, t := range types {
		code += g.value(t, depth, leaf)
	}
	return code
}

func (g *generator) value(t wasmtest.Type, depth int, leaf bool) wasmtest.Code {
	if depth > 0 && g.IntN(2) == 0 {
		return g.operation(t, depth, leaf)
	}
	if g.IntN(3) > 0 {
		for _, i := range g.Perm(len(g.locals)) {
			if g.locals[i] == t {
				return wasmtest.LocalGet(uint32(i))
			}
		}
	}
	switch t {
	case wasmtest.I32:
		return wasmtest.I32Const(int32(g.Uint32()) >> g.IntN(32))
	case wasmtest.I64:
		return wasmtest.I64Const(int64(g.Uint64()) >> g.IntN(64))
	}
	return wasmtest.F64Const(g.Float64())
}

func (g *generator) operation(t wasmtest.Type, depth int, leaf bool) wasmtest.Code {
	one := func(t wasmtest.Type) wasmtest.Code { return g.value(t, depth-1, leaf) }
	switch t {
	case wasmtest.I32:
		switch g.IntN(7) {
		case 0:
			return one(t) + one(t) + wasmtest.I32Sub
		case 1:
			return one(t) + one(t) + wasmtest.I32DivU
		case 2:
			return one(wasmtest.I64) + wasmtest.I32WrapI64
		case 3:
			return wasmtest.I32Const(int32(g.IntN(32768))) + wasmtest.I32Load(0)
		case 4:
			return wasmtest.MemorySize
		case 5:
			return one(t) + one(t) + one(t) + wasmtest.Select
		}
		return one(t) + one(t) + wasmtest.I32Xor
	case wasmtest.I64:
		switch g.IntN(3) {
		case 0:
			return one(wasmtest.I32) + wasmtest.I64ExtendI32S
		case 1:
			return one(t) + one(t) + wasmtest.I64Mul
		}
		return one(t) + one(t) + wasmtest.I64Add
	}
	return one(t) + one(t) + wasmtest.F64Mul
}
