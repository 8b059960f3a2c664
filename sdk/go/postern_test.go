package postern_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// script is a plugin that does what a test says.
type script struct {
	configure func(*postern.Stage) error
	on        func(*postern.Event, *postern.Result) error
}

func (s *script) Configure(st *postern.Stage) error {
	if s.configure == nil {
		return nil
	}
	return s.configure(st)
}

func (s *script) On(e *postern.Event, r *postern.Result) error { return s.on(e, r) }

// frame encodes a frame with its slots; nil is absent.
func frame(kind abi.Event, slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*len(slots))
	binary.LittleEndian.PutUint16(b[4:], uint16(kind))
	b[6], b[7] = 4, abi.FlagEnd|abi.FlagGone
	binary.LittleEndian.PutUint32(b[8:], 3)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(slots)))
	binary.LittleEndian.PutUint64(b[16:], 99)
	binary.LittleEndian.PutUint64(b[24:], 77)
	for i, s := range slots {
		if s != nil {
			binary.LittleEndian.PutUint32(b[abi.FrameHeader+8*i:], uint32(len(b)))
			binary.LittleEndian.PutUint32(b[abi.FrameHeader+8*i+4:], uint32(len(s)))
			b = append(b, s...)
		}
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func run(values ...string) (b []byte) {
	for _, v := range values {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func TestEvent(t *testing.T) {
	t.Parallel()
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		if e.Kind != abi.EventResponse || e.Phase != postern.Request || e.Stage != 3 || e.Time() != 99 || e.Exchange() != 77 ||
			!e.End() || !e.Gone() || e.Stream() || e.Truncated() {
			t.Errorf("header %+v", e)
		}
		body, ok := e.Body()
		if !ok || len(body) != 0 || string(e.Carry()) != "c" {
			t.Errorf("body %q %v, carry %q", body, ok, e.Carry())
		}
		first, ok := e.Header(0)
		if !ok || string(first) != "a" {
			t.Errorf("header %q %v", first, ok)
		}
		var all []string
		for v := range e.Headers(0) {
			all = append(all, string(v))
		}
		for name, value := range e.Fields(1) {
			all = append(all, string(name)+":"+string(value))
		}
		if strings.Join(all, " ") != "a  b x:1 y:2" {
			t.Errorf("headers %q", all)
		}
		if _, ok := e.Header(2); ok || e.Has(2) || e.Has(9) || e.Has(-1) || !e.Has(3) || e.Value(3).Text() != "v" || e.Value(2).Kind() != abi.KindNull {
			t.Error("slots")
		}
		return nil
	}}, nil)
	f := frame(abi.EventResponse, []byte("c"), []byte{}, run("a", "", "b"), run("x", "1", "y", "2"), nil, abi.AppendString(nil, "v"))
	if action, ops := i.On(copy(i.Frame(), f)); action != abi.ActionContinue || len(ops) != 0 {
		t.Errorf("%v % x", action, ops)
	}
}

// A frame that is not whole is answered, not believed.
func FuzzFrame(f *testing.F) {
	f.Add(frame(abi.EventRequest, []byte("c"), nil, run("a"), abi.AppendString(nil, "v")))
	f.Add(frame(abi.EventRequest))
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		for s := range 8 {
			e.Header(s)
			e.Value(s)
			for range e.Headers(s) {
			}
			for range e.Fields(s) {
			}
		}
		e.Carry()
		e.Body()
		return nil
	}}, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := copy(i.Frame(), b)
		i.On(n)
		i.Configure(n)
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	why := errors.New(strings.Repeat("x", 5000))
	i := postern.NewInstance(&script{
		configure: func(s *postern.Stage) error { return errors.New("stage " + s.Config.Member("a").Text()) },
		on: func(e *postern.Event, r *postern.Result) error {
			r.SetHeader("x-a", "dropped")
			return why
		},
	}, nil)
	config := abi.AppendString(abi.AppendKey(abi.AppendObject(nil, 1), "a"), "no")
	action, ops := i.Configure(copy(i.Frame(), frame(abi.EventConfigure, nil, config)))
	if action != abi.ActionError || !strings.HasSuffix(string(ops), "stage no") {
		t.Errorf("%v %q", action, ops)
	}
	action, ops = i.On(copy(i.Frame(), frame(abi.EventRequest)))
	if action != abi.ActionError || strings.Contains(string(ops), "dropped") || len(ops) > 2000 {
		t.Errorf("%v: %d octets", action, len(ops))
	}
	i = postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		r.ReplaceBody(make([]byte, abi.MaxFrame))
		return nil
	}}, nil)
	if action, ops = i.On(copy(i.Frame(), frame(abi.EventRequest))); action != abi.ActionError || !strings.Contains(string(ops), "16777215") {
		t.Errorf("a result that does not fit: %v, %d octets", action, len(ops))
	}
	if action, _ = i.On(-1); action != abi.ActionError {
		t.Error("a negative length")
	}
	if action, _ = i.On(1 << 30); action != abi.ActionError {
		t.Error("a length beyond the buffer")
	}
	if n := len(i.Grow(200 << 10)); n != 200<<10 {
		t.Errorf("grew to %d", n)
	}
	if n := len(i.Grow(1 << 30)); n != 200<<10 {
		t.Errorf("grew to %d", n)
	}
}

// answers is a host that wants the larger buffer at first.
type answers struct{ calls int }

func (a *answers) Log(int, string) {}

func (a *answers) Op(code abi.Code, in, out []byte) int64 {
	a.calls++
	if len(out) < abi.MaxAnswer {
		return abi.ErrTooSmall
	}
	if code == abi.CodeCAS {
		return abi.ErrConflict
	}
	return int64(copy(out, in))
}

func TestHost(t *testing.T) {
	t.Parallel()
	a := new(answers)
	h := postern.NewHost(a)
	for range 2 {
		if v, err := h.Get([]byte("key")); string(v) != "key" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	}
	if a.calls != 3 { // the larger buffer is kept
		t.Errorf("%d calls", a.calls)
	}
	if err := h.CAS([]byte("k"), nil, nil, time.Second); !errors.Is(err, postern.ErrConflict) || err.Error() == "" {
		t.Error(err)
	}
	for n := postern.Error(-11); n < 0; n++ {
		if n.Error() == "" {
			t.Errorf("error %d has no text", n)
		}
	}
}

// Writing a result and asking the host allocates nothing.
func TestAllocations(t *testing.T) {
	h := postern.NewHost(new(answers))
	key := []byte("key")
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		v, _ := e.Header(0)
		r.SetHeader("x-a", postern.String(v))
		r.SetAttribute("self.a", "b")
		r.SetAttributeInts("targets", 1, 0)
		r.SetAttributeStrings("identity.scopes", "a", "b")
		r.SetAttributeValue("self.v", e.Value(1))
		r.Splice(1, 2, key)
		r.Meter("n", 1)
		r.Carry(key)
		r.Done()
		_, err := h.Get(key)
		return err
	}}, nil)
	n := copy(i.Frame(), frame(abi.EventRequest, nil, []byte("hello"), run("a"), abi.AppendString(nil, "v")))
	if allocs := testing.AllocsPerRun(100, func() {
		if action, _ := i.On(n); action != abi.ActionDone {
			t.Error(action)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
