package abi1

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/plugin/shared"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Imports lists what Install defines.
func (*ABI) Imports() []admission.Import {
	return []admission.Import{
		{Module: abi.ImportModule, Name: abi.ImportLog, Kind: "function", Type: "(i32, i32, i32) -> ()"},
		{Module: abi.ImportModule, Name: abi.ImportOp, Kind: "function", Type: "(i32, i32, i32, i32, i32) -> i64"},
	}
}

// Install defines the host module postern.
func (*ABI) Install(ctx context.Context, r wazero.Runtime) error {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	_, err := r.NewHostModuleBuilder(abi.ImportModule).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostLog), []api.ValueType{i32, i32, i32}, nil).Export(abi.ImportLog).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostOp), []api.ValueType{i32, i32, i32, i32, i32}, []api.ValueType{i64}).Export(abi.ImportOp).
		Instantiate(ctx)
	return err
}

func hostLog(ctx context.Context, m api.Module, stack []uint64) {
	s := plugin.SessionOf(ctx)
	length := uint32(stack[2])
	if line, ok := m.Memory().Read(uint32(stack[1]), length); ok && s != nil {
		s.Log(int32(uint32(stack[0])), line)
	}
}

func hostOp(ctx context.Context, m api.Module, stack []uint64) {
	s := plugin.SessionOf(ctx)
	memory := m.Memory()
	in, ok1 := memory.Read(uint32(stack[1]), uint32(stack[2]))
	out, ok2 := memory.Read(uint32(stack[3]), uint32(stack[4]))
	switch {
	case s == nil:
		stack[0] = reply(abi.ErrUnavailable)
	case !ok1 && uint32(stack[2]) > 0, !ok2 && uint32(stack[4]) > 0:
		stack[0] = reply(abi.ErrInvalid)
	default:
		stack[0] = reply(Op(s, abi.Code(uint32(stack[0])), in, out))
	}
}

func reply(n int64) uint64 { return uint64(n) }

// roomForAmounts is what the answers of hold and settle take at most; they are refused before anything is done when out
// has less.
const roomForAmounts = 512

// Op does one operation for a guest and returns the octets written to out, or a negative abi error. Nothing of in is kept.
func Op(s *plugin.Session, code abi.Code, in, out []byte) int64 {
	if len(in) > abi.MaxInput {
		return abi.ErrInvalid
	}
	switch code {
	case abi.CodeTime:
		now, err := s.Time()
		return number(out, now.UnixNano(), err)
	case abi.CodeRandom:
		if err := s.Random(out); err != nil {
			return Code(err)
		}
		return int64(len(out))
	case abi.CodeKey:
		id, err := s.Key(in)
		if err != nil {
			return Code(err)
		}
		return whole(out, appendIdentity(out[:0], &id))
	case abi.CodeHold:
		return hold(s, in, out)
	case abi.CodeSettle:
		return settle(s, in, out)
	case abi.CodeRelease:
		return done(s.Release(string(in)))
	case abi.CodeGet, abi.CodePut, abi.CodeCAS, abi.CodeDelete, abi.CodeCount:
		state, err := s.State()
		if err != nil {
			return Code(err)
		}
		return stateOp(state, code, in, out)
	case abi.CodeCacheGet, abi.CodeCachePut:
		cache, account, err := s.Cache()
		if err != nil {
			return Code(err)
		}
		return cacheOp(cache, account, code, in, out)
	}
	return abi.ErrUnknown
}

func cacheOp(cache *shared.Cache, account string, code abi.Code, in, out []byte) int64 {
	if code == abi.CodeCacheGet {
		b, err := cache.Get(out[:0], account, in)
		if err != nil {
			return Code(err)
		}
		return whole(out, b)
	}
	ttl, key, value, ok := timed(in)
	if !ok {
		return abi.ErrInvalid
	}
	return done(cache.Put(account, key, value, ttl))
}

// timed takes apart u64 ttl, u32 key length, key, value.
func timed(in []byte) (ttl time.Duration, key, value []byte, ok bool) {
	if len(in) < 12 {
		return 0, nil, nil, false
	}
	ttl = time.Duration(binary.LittleEndian.Uint64(in))
	n := uint64(binary.LittleEndian.Uint32(in[8:]))
	if in = in[12:]; n > uint64(len(in)) {
		return 0, nil, nil, false
	}
	return ttl, in[:n], in[n:], true
}

func stateOp(state *shared.Store, code abi.Code, in, out []byte) int64 {
	switch code {
	case abi.CodeGet:
		b, err := state.Get(out[:0], in)
		if err != nil {
			return Code(err)
		}
		return whole(out, b)
	case abi.CodePut:
		ttl, key, value, ok := timed(in)
		if !ok {
			return abi.ErrInvalid
		}
		return done(state.Put(key, value, ttl))
	case abi.CodeCAS:
		if len(in) < 16 {
			return abi.ErrInvalid
		}
		ttl, n := time.Duration(binary.LittleEndian.Uint64(in)), uint64(binary.LittleEndian.Uint32(in[8:]))
		old := uint64(binary.LittleEndian.Uint32(in[12:]))
		absent := old == abi.NoValue
		if absent {
			old = 0
		}
		if in = in[16:]; n+old > uint64(len(in)) {
			return abi.ErrInvalid
		}
		return done(state.CAS(in[:n], in[n:n+old], in[n+old:], absent, ttl))
	case abi.CodeDelete:
		return done(state.Delete(in))
	}
	if len(in) < 16 {
		return abi.ErrInvalid
	}
	if len(out) < 8 {
		return abi.ErrTooSmall
	}
	sum, err := state.Count(in[16:], int64(binary.LittleEndian.Uint64(in)), time.Duration(binary.LittleEndian.Uint64(in[8:])))
	return number(out, sum, err)
}

func appendIdentity(b []byte, id *exchange.Identity) []byte {
	b = abi.AppendObject(b, 4)
	b = abi.AppendString(abi.AppendKey(b, "account"), id.Account)
	b = abi.AppendString(abi.AppendKey(b, "key"), id.Key)
	b = abi.AppendString(abi.AppendKey(b, "name"), id.Name)
	b = abi.AppendList(abi.AppendKey(b, "scopes"), len(id.Scopes))
	for _, scope := range id.Scopes {
		b = abi.AppendString(b, scope)
	}
	return b
}

func hold(s *plugin.Session, in, out []byte) int64 {
	v, rest, ok := abi.ReadValue(in)
	if !ok || len(rest) > 0 {
		return abi.ErrInvalid
	}
	max, ok := usage(v.Member("max"))
	account := v.Member("account").Text()
	if !ok || account == "" {
		return abi.ErrInvalid
	}
	if len(out) < roomForAmounts {
		return abi.ErrTooSmall
	}
	id, amount, err := s.Hold(account, v.Member("model").Text(), max)
	if err != nil {
		return Code(err)
	}
	b := abi.AppendObject(out[:0], 2)
	b = abi.AppendString(abi.AppendKey(b, "hold"), id)
	return whole(out, abi.AppendString(abi.AppendKey(b, "amount"), amount.String()))
}

// Bounds of a settlement's tags.
const (
	maxTags    = 32
	maxTagKey  = 64
	maxTagText = 256
)

func settle(s *plugin.Session, in, out []byte) int64 {
	v, rest, ok := abi.ReadValue(in)
	if !ok || len(rest) > 0 {
		return abi.ErrInvalid
	}
	used, ok := usage(v.Member("usage"))
	list := v.Member("tags")
	if !ok || list.Kind() != abi.KindObject && list.Kind() != abi.KindNull || list.Len() > maxTags {
		return abi.ErrInvalid
	}
	used.Estimated = v.Member("estimated").Bool()
	var tags map[string]string
	if list.Len() > 0 {
		tags = make(map[string]string, list.Len())
	}
	for key, tag := range list.Each {
		if tag.Kind() == abi.KindNull {
			continue
		}
		if tag.Kind() != abi.KindString || len(key) == 0 || len(key) > maxTagKey || len(tag.Bytes()) > maxTagText {
			return abi.ErrInvalid
		}
		tags[string(key)] = tag.Text()
	}
	if len(out) < roomForAmounts {
		return abi.ErrTooSmall
	}
	receipt, err := s.Settle(v.Member("hold").Text(), used, tags)
	if err != nil {
		return Code(err)
	}
	b := abi.AppendObject(out[:0], 2)
	b = abi.AppendString(abi.AppendKey(b, "amount"), receipt.Amount.String())
	return whole(out, abi.AppendString(abi.AppendKey(b, "balance"), receipt.Balance.String()))
}

// usage reads counts by unit: a list in the order of the units, or an object by their names; other members of an object,
// such as prompt and completion, are sums of these and passed over.
func usage(v abi.Value) (*exchange.Usage, bool) {
	u := new(exchange.Usage)
	if v.Kind() != abi.KindList && v.Kind() != abi.KindObject && v.Kind() != abi.KindNull {
		return nil, false
	}
	unit := exchange.Unit(0)
	for key, count := range v.Each {
		at := unit
		if v.Kind() == abi.KindObject {
			known := false
			if at, known = exchange.ParseUnit(string(key)); !known {
				continue
			}
		}
		if at >= exchange.UnitCount || count.Kind() != abi.KindInt || count.Int() < 0 {
			return nil, false
		}
		u.Units[at] = count.Int()
		unit++
	}
	return u, true
}

// whole tells how much was appended to out; what was longer than out has moved elsewhere.
func whole(out, b []byte) int64 {
	if len(b) > len(out) {
		return abi.ErrTooSmall
	}
	return int64(len(b))
}

func number(out []byte, n int64, err error) int64 {
	if err != nil {
		return Code(err)
	}
	if len(out) < 8 {
		return abi.ErrTooSmall
	}
	binary.LittleEndian.PutUint64(out, uint64(n))
	return 8
}

func done(err error) int64 {
	if err != nil {
		return Code(err)
	}
	return 0
}

// Code is what a guest is told of an error.
func Code(err error) int64 {
	switch {
	case errors.Is(err, plugin.ErrNotFound):
		return abi.ErrNotFound
	case errors.Is(err, plugin.ErrConflict):
		return abi.ErrConflict
	case errors.Is(err, plugin.ErrDenied):
		return abi.ErrDenied
	case errors.Is(err, plugin.ErrInvalid):
		return abi.ErrInvalid
	case errors.Is(err, plugin.ErrInsufficient):
		return abi.ErrInsufficient
	case errors.Is(err, plugin.ErrExpired):
		return abi.ErrExpired
	case errors.Is(err, plugin.ErrLimit):
		return abi.ErrLimit
	}
	return abi.ErrUnavailable
}
