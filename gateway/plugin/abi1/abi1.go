// Package abi1 speaks the policy ABI, version 1, with guests: its main type is ABI. sdk/ABI.md is the normative text. An
// event is encoded into the guest's own memory in one go, the guest is entered once, and what it decided is copied out
// before any of it is looked at.
package abi1

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/sdk/abi"
)

// ABI is the front-end for modules that export postern_abi_v1.
type ABI struct {
	seed maphash.Seed // of exchange numbers
}

// New returns the front-end.
func New() *ABI { return &ABI{seed: maphash.MakeSeed()} }

// Name is "postern/1".
func (*ABI) Name() string { return "postern/1" }

// Speaks reports whether a module exports postern_abi_v1, or another version of it, which Check refuses by name.
func (*ABI) Speaks(exports []admission.Export) bool {
	return slices.ContainsFunc(exports, func(e admission.Export) bool {
		return otherVersion(e.Name) || e.Name == abi.ExportConfigure || e.Name == abi.ExportOn
	})
}

const versionPrefix = "postern_abi_v"

// otherVersion reports whether an export names a version of the ABI, this one or another.
func otherVersion(name string) bool {
	return len(name) > len(versionPrefix) && strings.HasPrefix(name, versionPrefix)
}

// Check checks a module's exports; what it imports, admission has checked.
func (*ABI) Check(m *admission.Module, mf *manifest.Manifest) error {
	exports := map[string]admission.Export{}
	for _, e := range m.Exports() {
		exports[e.Name] = e
	}
	var errs []error
	if _, ok := exports[abi.ExportABI]; !ok {
		for _, name := range slices.Sorted(maps.Keys(exports)) {
			if otherVersion(name) {
				errs = append(errs, fmt.Errorf("the module speaks %s; this gateway speaks %s", name, abi.ExportABI))
			}
		}
	}
	if mf.ABI != abi.Version {
		errs = append(errs, fmt.Errorf("the manifest says abi = %d; this module's ABI is %d", mf.ABI, abi.Version))
	}
	for _, s := range []struct {
		name, signature string
		optional        bool
	}{
		{abi.ExportABI, "() -> i64", false},
		{abi.ExportConfigure, "(i32) -> i64", false},
		{abi.ExportOn, "(i32, i32) -> i64", false},
		{abi.ExportGrow, "(i32) -> i64", true},
	} {
		e, ok := exports[s.name]
		switch {
		case !ok && !s.optional && len(errs) == 0:
			errs = append(errs, fmt.Errorf("the module does not export the function %s", s.name))
		case ok && e.Kind != "function":
			errs = append(errs, fmt.Errorf("the export %s is a %s; it must be a function", s.name, e.Kind))
		case ok && e.Type != s.signature:
			errs = append(errs, fmt.Errorf("the export %s has the signature %s; it must be %s", s.name, e.Type, s.signature))
		}
	}
	return errors.Join(errs...)
}

// Open lays out what each of a module's stages gets to see.
func (a *ABI) Open(_ wazero.CompiledModule, _ *config.Plugin, stages []*config.Stage) (plugin.Module, error) {
	opened := &module{layouts: make([]*Layout, len(stages))}
	var errs []error
	for i, s := range stages {
		l, err := a.NewLayout(s, i)
		if err != nil {
			errs = append(errs, err)
		}
		opened.layouts[i] = l
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

type module struct{ layouts []*Layout }

// Guest looks an instance's exports up, once: each look-up allocates a stack.
func (m *module) Guest(ctx context.Context, instance api.Module) (plugin.Guest, error) {
	g := &guest{
		module: m, session: plugin.SessionOf(ctx), memory: instance.Memory(), on: instance.ExportedFunction(abi.ExportOn),
		configure: instance.ExportedFunction(abi.ExportConfigure), grow: instance.ExportedFunction(abi.ExportGrow),
	}
	if err := instance.ExportedFunction(abi.ExportABI).CallWithStack(ctx, g.stack[:]); err != nil {
		return nil, err
	}
	if err := g.buffer(g.stack[0]); err != nil {
		return nil, err
	}
	if g.capacity < abi.MinFrame {
		return nil, plugin.Broke("the frame buffer has room for %d octets, and %d is the least", g.capacity, abi.MinFrame)
	}
	return g, nil
}

type guest struct {
	module              *module
	session             *plugin.Session
	memory              api.Memory
	on, configure, grow api.Function
	address, capacity   uint32
	stack               [2]uint64
}

// buffer takes in where the guest says its frame buffer is.
func (g *guest) buffer(packed uint64) error {
	address, capacity := uint32(packed>>32), uint32(packed)
	if address == 0 || capacity == 0 {
		return plugin.Broke("the module offers no frame buffer; has it registered a plugin?")
	}
	if _, ok := g.memory.Read(address, capacity); !ok {
		return plugin.Broke("the frame buffer, %d octets at %d, is outside the memory", capacity, address)
	}
	g.address, g.capacity = address, capacity
	return nil
}

// Configure hands a stage's configuration to the guest.
func (g *guest) Configure(ctx context.Context, stage int) error {
	l := g.module.layouts[stage]
	now := g.session.Now(0)
	view, ok := g.memory.Read(g.address, g.capacity)
	if !ok {
		return plugin.Broke("the frame buffer is gone")
	}
	n, err := g.fit(ctx, view, l.AppendConfigure(view[:0], now))
	if err != nil {
		return err
	}
	g.stack[0] = uint64(n)
	if err := g.configure.CallWithStack(ctx, g.stack[:]); err != nil {
		return err
	}
	var res plugin.Result
	if err := g.result(&res, g.stack[0]); err != nil {
		return err
	}
	return Configured(&res)
}

// Configured reads the answer to EventConfigure: nil, or the plugin's reason to refuse.
func Configured(res *plugin.Result) error {
	switch res.Action {
	case abi.ActionContinue:
		if len(res.Ops) > 0 {
			return plugin.Broke("operations in answer to a configuration")
		}
		return nil
	case abi.ActionError:
		if err := res.Check(&plugin.Event{Kind: abi.EventConfigure}, 0, ""); err != nil {
			return err
		}
		_, _, detail, _, _ := res.Respond()
		if detail == "" {
			detail = "it gives no reason"
		}
		return &plugin.Fault{Kind: plugin.Refused, Detail: detail}
	}
	return plugin.Broke("action %d in answer to a configuration", res.Action)
}

// Call hands an event to the guest.
func (g *guest) Call(ctx context.Context, ev *plugin.Event, res *plugin.Result) error {
	view, ok := g.memory.Read(g.address, g.capacity)
	if !ok {
		return plugin.Broke("the frame buffer is gone")
	}
	frame, err := g.module.layouts[ev.Stage].AppendFrame(view[:0], ev, g.session.Now(ev.Now))
	if err != nil {
		return err
	}
	n, err := g.fit(ctx, view, frame)
	if err != nil {
		return err
	}
	g.stack[0], g.stack[1] = uint64(ev.Kind), uint64(n)
	if err := g.on.CallWithStack(ctx, g.stack[:]); err != nil {
		return err
	}
	return g.result(res, g.stack[0])
}

// fit makes sure that a frame is in the guest's buffer. It was appended to view, so a frame that had room there is there;
// a longer one has moved to memory of the host's, and is copied to a larger buffer that the guest is asked for.
func (g *guest) fit(ctx context.Context, view, frame []byte) (length int, err error) {
	if len(frame) <= len(view) {
		return len(frame), nil
	}
	switch {
	case len(frame) > abi.MaxFrame:
		return 0, &plugin.Fault{Kind: plugin.Memory, Detail: fmt.Sprintf("the event takes a frame of %d octets; %d is the most", len(frame), abi.MaxFrame)}
	case g.grow == nil:
		return 0, &plugin.Fault{Kind: plugin.Memory, Detail: fmt.Sprintf("the event takes a frame of %d octets; the module's buffer has %d and can not grow", len(frame), g.capacity)}
	}
	g.stack[0] = uint64(len(frame))
	if err := g.grow.CallWithStack(ctx, g.stack[:]); err != nil {
		return 0, err
	}
	if err := g.buffer(g.stack[0]); err != nil {
		return 0, err
	}
	if int64(g.capacity) < int64(len(frame)) {
		return 0, plugin.Broke("a frame buffer of %d octets was asked for and one of %d given", len(frame), g.capacity)
	}
	g.memory.Write(g.address, frame)
	return len(frame), nil
}

// result copies what the guest decided out of its memory.
func (g *guest) result(res *plugin.Result, packed uint64) error {
	action, address, length := abi.Unpack(packed)
	view, ok := g.memory.Read(address, length)
	if !ok && length > 0 {
		return plugin.Broke("a result of %d octets at %d, outside the memory", length, address)
	}
	return Decode(res, action, view[:min(int(length), len(view))])
}

// Decode takes a result's operations apart into res, which keeps a copy. What they mean is checked by plugin.Result.Check.
func Decode(res *plugin.Result, action abi.Action, ops []byte) error {
	res.Reset()
	res.Action = action
	b := res.Copy(ops)
	for len(b) > 0 {
		if len(b) < abi.OpHeader {
			return plugin.Broke("%d octets after the last operation", len(b))
		}
		if len(res.Ops) == abi.MaxResultOps {
			return plugin.Broke("more than %d operations in one result", abi.MaxResultOps)
		}
		head := binary.LittleEndian.Uint64(b)
		if head&0xff00 != 0 {
			return plugin.Broke("operation %d: octet 1 is not zero", len(res.Ops))
		}
		key, value := head>>16&0xffff, head>>32
		if uint64(len(b)-abi.OpHeader) < key+value {
			return plugin.Broke("operation %d: key and value of %d and %d octets, and %d are left", len(res.Ops), key, value, len(b)-abi.OpHeader)
		}
		end := abi.OpHeader + key
		res.Ops = append(res.Ops, plugin.Op{Code: abi.Op(head), Key: b[abi.OpHeader:end:end], Value: b[end : end+value : end+value]})
		b = b[end+value:]
	}
	return nil
}
