package postern_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// fetched encodes the body of EventFetched: one answer that came and one that did not.
func fetched() []byte {
	b := abi.AppendObject(nil, 2)
	b = abi.AppendObject(abi.AppendKey(b, "auth"), 5)
	b = abi.AppendInt(abi.AppendKey(b, "status"), 204)
	b = abi.AppendString(abi.AppendKey(b, "error"), "")
	b = abi.AppendBool(abi.AppendKey(b, "cached"), true)
	b = abi.AppendObject(abi.AppendKey(b, "headers"), 2)
	b = abi.AppendString(abi.AppendKey(b, "x-account"), "acme")
	b = abi.AppendString(abi.AppendKey(b, "x-empty"), "")
	b = abi.AppendString(abi.AppendKey(b, "body"), "yes")
	b = abi.AppendObject(abi.AppendKey(b, "keys"), 5)
	b = abi.AppendInt(abi.AppendKey(b, "status"), 0)
	b = abi.AppendString(abi.AppendKey(b, "error"), abi.FetchTimeout)
	b = abi.AppendBool(abi.AppendKey(b, "cached"), false)
	b = abi.AppendObject(abi.AppendKey(b, "headers"), 0)
	return abi.AppendString(abi.AppendKey(b, "body"), "")
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		auth, ok := e.Answer("auth")
		if e.Kind != abi.EventFetched {
			if ok {
				t.Error("an answer in another event")
			}
			return nil
		}
		if account, there := auth.Header("x-account"); !ok || !auth.OK() || auth.Status != 204 || !auth.Cached || string(auth.Body) != "yes" || !there || string(account) != "acme" {
			t.Errorf("auth %+v %v", auth, ok)
		}
		if v, there := auth.Header("x-empty"); !there || len(v) != 0 {
			t.Error("an empty field is absent")
		}
		if _, there := auth.Header("x-other"); there {
			t.Error("a field that is not there")
		}
		keys, ok := e.Answer("keys")
		if !ok || keys.OK() || keys.Error != abi.FetchTimeout || keys.Status != 0 {
			t.Errorf("keys %+v %v", keys, ok)
		}
		if _, ok := e.Answer("other"); ok {
			t.Error("an answer nobody asked for")
		}
		var names, fields string
		for name, a := range e.Answers {
			names += string(name) + " "
			for name, value := range a.Fields {
				fields += string(name) + "=" + string(value) + " "
			}
		}
		if names != "auth keys " || fields != "x-account=acme x-empty= " {
			t.Errorf("%q, %q", names, fields)
		}
		return nil
	}}, nil)
	for _, kind := range []abi.Event{abi.EventFetched, abi.EventRequestBody} {
		if action, ops := i.On(copy(i.Frame(), frame(kind, nil, fetched()))); action != abi.ActionContinue {
			t.Errorf("%v %q", action, ops)
		}
	}
}

// FuzzAnswers: an event whose answers are not well formed is read without harm.
func FuzzAnswers(f *testing.F) {
	f.Add(fetched(), "auth")
	f.Add([]byte{6, 255, 255, 255, 255}, "")
	f.Add(abi.AppendInt(abi.AppendKey(abi.AppendObject(nil, 1), "auth"), 1), "auth")
	i := postern.NewInstance(&script{}, nil)
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		if len(body) > 32<<10 {
			return
		}
		on := func(e *postern.Event, r *postern.Result) error {
			a, _ := e.Answer(name)
			a.Header(name)
			for _, a := range e.Answers {
				for range a.Fields {
				}
			}
			return nil
		}
		i = postern.NewInstance(&script{on: on}, nil)
		i.On(copy(i.Frame(), frame(abi.EventFetched, nil, body)))
	})
}

// operation takes the first operation off a result.
func operation(t *testing.T, ops []byte) (code abi.Op, key string, value, rest []byte) {
	t.Helper()
	if len(ops) < abi.OpHeader {
		t.Fatalf("no operation in % x", ops)
	}
	k, v := int(binary.LittleEndian.Uint16(ops[2:])), int(binary.LittleEndian.Uint32(ops[4:]))
	if len(ops) < abi.OpHeader+k+v {
		t.Fatalf("key and value of %d and %d octets in %d", k, v, len(ops)-abi.OpHeader)
	}
	ops, code = ops[abi.OpHeader:], abi.Op(ops[0])
	return code, string(ops[:k]), ops[k : k+v], ops[k+v:]
}

func TestFetch(t *testing.T) {
	t.Parallel()
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		r.Carry([]byte("c"))
		r.Fetch("auth", postern.Fetch{
			URL: "https://auth.example.com/check", Method: "POST", Headers: []postern.Field{{"authorization", "secret"}, {"x-a", ""}},
			Body: []byte("{}"), Timeout: time.Second, Cache: 5 * time.Second, Max: 1000,
		})
		r.Fetch("keys", postern.Fetch{Upstream: "keys", Path: "/jwks.json?a=b"})
		r.Await()
		return nil
	}}, nil)
	action, ops := i.On(copy(i.Frame(), frame(abi.EventRequest)))
	if action != abi.ActionAwait {
		t.Fatalf("action %d", action)
	}
	_, _, _, ops = operation(t, ops)
	code, name, value, ops := operation(t, ops)
	v, rest, ok := abi.ReadValue(value)
	if code != abi.OpFetch || name != "auth" || !ok || len(rest) != 0 {
		t.Fatalf("%d %q % x", code, name, value)
	}
	if v.Len() != 7 || v.Member("url").Text() != "https://auth.example.com/check" || v.Member("method").Text() != "POST" || v.Member("body").Text() != "{}" ||
		v.Member("timeout").Int() != 1e9 || v.Member("cache").Int() != 5e9 || v.Member("max").Int() != 1000 {
		t.Errorf("% x", value)
	}
	if h := v.Member("headers"); h.Len() != 2 || h.Member("authorization").Text() != "secret" || h.Member("x-a").Kind() != abi.KindString {
		t.Errorf("headers % x", h.Raw())
	}
	code, name, value, ops = operation(t, ops)
	v, _, _ = abi.ReadValue(value)
	if code != abi.OpFetch || name != "keys" || v.Len() != 2 || v.Member("upstream").Text() != "keys" || v.Member("path").Text() != "/jwks.json?a=b" || len(ops) != 0 {
		t.Errorf("%d %q % x, then % x", code, name, value, ops)
	}
}

// Asking for a fetch and reading its answer allocates nothing.
func TestFetchAllocations(t *testing.T) {
	secret := []byte("secret")
	i := postern.NewInstance(&script{on: func(e *postern.Event, r *postern.Result) error {
		if e.Kind == abi.EventFetched {
			a, _ := e.Answer("auth")
			account, _ := a.Header("x-account")
			r.SetHeader("x-account", postern.String(account))
			for range e.Answers {
				for range a.Fields {
				}
			}
			return nil
		}
		r.Fetch("auth", postern.Fetch{URL: "https://a/b", Headers: []postern.Field{{"authorization", postern.String(secret)}}, Cache: time.Second})
		r.Await()
		return nil
	}}, nil)
	for _, f := range [][]byte{frame(abi.EventRequest), frame(abi.EventFetched, nil, fetched())} {
		n := copy(i.Frame(), f)
		if allocs := testing.AllocsPerRun(100, func() {
			if action, _ := i.On(n); action == abi.ActionError {
				t.Error(action)
			}
		}); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}
