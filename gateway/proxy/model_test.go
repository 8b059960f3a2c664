package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// toy is a format in which a reply's usage is its length: whole "usage=N", streamed one for each event before "[DONE]".
type toy struct{ provider.Format }

func (toy) Encode(_ provider.Operation, call *exchange.Call, body []byte) (string, []byte, error) {
	target, _ := call.Chosen()
	return "/v1/do", []byte(target.Model + ":" + string(body)), nil
}
func (toy) Decode(provider.Operation, *exchange.Call, []byte) provider.Decoder {
	return new(toyDecoder)
}
func (toy) Text(event []byte, add func(int, []byte)) { add(0, event) }
func (toy) Receipt(body []byte, r *exchange.Receipt) []byte {
	return append(body, " receipt "+r.ID...)
}

type toyDecoder struct{ used int64 }

func (d *toyDecoder) Whole(_ int, body []byte) []byte {
	_, _ = fmt.Sscanf(string(body), "usage=%d", &d.used)
	return bytes.ReplaceAll(body, []byte("inner"), []byte("public"))
}
func (d *toyDecoder) Event(dst, event []byte) ([]byte, bool) {
	if bytes.Contains(event, []byte("hidden")) {
		return dst, false
	}
	last := bytes.Contains(event, []byte("[DONE]"))
	if !last {
		d.used++
	}
	return append(dst, event...), last
}
func (d *toyDecoder) Usage() exchange.Usage {
	var u exchange.Usage
	u.Units[exchange.Output] = d.used
	return u
}
func (d *toyDecoder) Failed() bool { return false }

// journal counts what was put on record.
type journal struct {
	mu          sync.Mutex
	begun       []string
	checkpoints int
	err         error
}

func (j *journal) Begin(_ context.Context, x *exchange.Exchange) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	target, _ := x.Call.Chosen()
	j.begun = append(j.begun, fmt.Sprintf("%d %s %s", x.Attempts, x.Upstream, target.Model))
	return nil
}
func (j *journal) Checkpoint(*exchange.Exchange) { j.checkpoints++ }

// provide makes a provider of a handler; each call of a model arrives as "model:body".
func provide(t testing.TB, name string, h http.HandlerFunc) *upstream.Upstream {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return open(t, config.Upstream{
		Name: name, Headers: []config.UpstreamHeader{{Name: "authorization", Value: "Bearer ours"}},
		Retry: config.Retry{Attempts: 1},
	}, s.URL)
}

// order makes an exchange for a model call to upstreams in their order.
func order(body string, upstreams ...*upstream.Upstream) (*exchange.Exchange, *recorder, *Hop, *journal, *[]exchange.Usage) {
	x, rec := ask("POST", "/v1/public", body, "content-type", "application/json", "authorization", "Bearer customer", "cookie", "c", "x-own", "o", "accept-encoding", "gzip")
	for i, u := range upstreams {
		x.Call.Targets = append(x.Call.Targets, exchange.Target{Upstream: u.Name(), Model: fmt.Sprintf("m%d", i)})
	}
	j := new(journal)
	settled := new([]exchange.Usage)
	hop := &Hop{
		Journal: j, Stages: &stages{account: func(x *exchange.Exchange) {
			*settled = append(*settled, x.Usage)
			x.Receipt = &exchange.Receipt{ID: "r1", Amount: exchange.Pico(15), Usage: x.Usage}
		}},
		Model: &Model{Format: toy{}, Body: []byte(body), Resolve: func(name string) (*upstream.Upstream, bool) {
			i := slices.IndexFunc(upstreams, func(u *upstream.Upstream) bool { return u.Name() == name })
			if i < 0 {
				return nil, false
			}
			return upstreams[i], true
		}},
	}
	return x, rec, hop, j, settled
}

func streaming(w http.ResponseWriter, parts ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, p := range parts {
		_, _ = io.WriteString(w, p)
		w.(http.Flusher).Flush()
	}
}

func TestModelWhole(t *testing.T) {
	settled(t)
	var got http.Header
	var body string
	u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r.Header.Clone(), r.URL.Path+" "+string(b)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "provider=1")
		w.Header().Set("X-Ratelimit-Remaining", "5")
		if strings.Contains(body, "zip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "usage=7 inner")
			_ = z.Close()
			return
		}
		_, _ = io.WriteString(w, "usage=7 inner")
	})
	for _, text := range []string{"hi", "zip"} {
		x, rec, hop, j, settled := order(text, u)
		if err := New(Config{}).Forward(context.Background(), x, hop); err != nil {
			t.Fatal(err)
		}
		if body != "/v1/do m0:"+text {
			t.Errorf("sent %q", body)
		}
		if got.Get("Authorization") != "Bearer ours" || got.Get("Cookie")+got.Get("X-Own")+got.Get("X-Forwarded-For")+got.Get("Forwarded") != "" || got.Get("Accept-Encoding") != "identity" {
			t.Errorf("the provider got %v", got)
		}
		if rec.text() != "usage=7 public receipt r1" || rec.length != int64(len(rec.text())) || !rec.ended {
			t.Errorf("%+v", rec)
		}
		if rec.header.Get("postern-receipt") != "id=r1; amount=0.000000000015; balance=0.00" || rec.header.Get("set-cookie")+rec.header.Get("x-ratelimit-remaining")+rec.header.Get("content-encoding") != "" {
			t.Errorf("header %v", rec.header)
		}
		if len(*settled) != 1 || (*settled)[0].Units[exchange.Output] != 7 || fmt.Sprint(j.begun) != "[1 a m0]" {
			t.Errorf("settled %v, begun %v", *settled, j.begun)
		}
	}
	// Longer than is kept: it passes, and is estimated by its size.
	x, rec, hop, _, settled := order("hi", u)
	x.Call.Max.Units[exchange.Output] = 100
	if err := New(Config{Whole: 5}).Forward(context.Background(), x, hop); err != nil {
		t.Fatal(err)
	}
	if rec.text() != "usage=7 inner" || len(*settled) != 1 || !(*settled)[0].Estimated || (*settled)[0].Units[exchange.Output] != 3 {
		t.Errorf("%q %v", rec.text(), *settled)
	}
}

func TestModelFallback(t *testing.T) {
	settled(t)
	answer := func(name string, status int) *upstream.Upstream {
		return provide(t, name, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "usage=3")
		})
	}
	cutting := provide(t, "cut", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	dead := open(t, config.Upstream{Name: "dead", Retry: config.Retry{Attempts: 1}}, "http://"+closed.Addr().String())
	good, limited, down, denied, wrong := answer("good", 200), answer("limited", 429), answer("down", 503), answer("denied", 401), answer("wrong", 400)
	tests := []struct {
		name    string
		targets []*upstream.Upstream
		want    string
		calls   int
	}{
		{"limited, then good", []*upstream.Upstream{limited, good}, "200", 2},
		{"dead, down, denied, then good", []*upstream.Upstream{dead, down, denied, good}, "200", 4},
		{"only limited", []*upstream.Upstream{limited}, "429", 1},
		{"a wrong request is nobody else's", []*upstream.Upstream{wrong, good}, "400", 1},
		{"our key is not the customer's fault", []*upstream.Upstream{denied}, "upstream_refused", 1},
		{"what may have been served is not asked for again", []*upstream.Upstream{cutting, good}, "upstream_reset", 1},
		{"nobody there", []*upstream.Upstream{dead}, "upstream_unreachable", 1},
		{"nobody at all", nil, "no_target", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			x, rec, hop, j, settled := order("hi", test.targets...)
			err := New(Config{}).Forward(context.Background(), x, hop)
			got := fmt.Sprint(rec.status)
			var p *exchange.Problem
			if errors.As(err, &p) {
				got = p.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if got != test.want || x.Attempts != test.calls || len(j.begun) != test.calls {
				t.Errorf("%s after %d calls, %d on record; want %s after %d", got, x.Attempts, len(j.begun), test.want, test.calls)
			}
			used := int64(0)
			if got == "200" {
				used = 3
			}
			if x.Usage.Units[exchange.Output] != used || (got == "200" && len(*settled) != 1) {
				t.Errorf("usage %v, settled %v", x.Usage, *settled)
			}
		})
	}
}

func TestModelUnrecorded(t *testing.T) {
	settled(t)
	var calls atomic.Int32
	u := provide(t, "a", func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{{errors.New("disk full"), 503, "ledger_unavailable"}, {&exchange.Problem{Status: 402, Code: "insufficient_balance"}, 402, "insufficient_balance"}} {
		x, _, hop, j, _ := order("hi", u)
		j.err = test.err
		problem(t, New(Config{}).Forward(context.Background(), x, hop), test.status, test.code)
		if calls.Load() != 0 || x.Attempts != 0 {
			t.Errorf("%d calls without a record", calls.Load())
		}
	}
}

func TestModelStream(t *testing.T) {
	settled(t)
	tests := []struct {
		name  string
		parts []string
		want  string
		used  int64
	}{
		{"plain", []string{"data: a\n\n", "data: b\n\n", "data: [DONE]\n\n"}, "data: a\n\ndata: b\n\n|data: [DONE]\n\n", 2},
		{"all at once", []string{"data: a\n\ndata: b\n\ndata: [DONE]\n\n"}, "data: a\n\ndata: b\n\n|data: [DONE]\n\n", 2},
		{"cut anywhere", []string{"da", "ta: a\r\n\r", "\ndata: hidden\n\nda", "ta: [DONE]", "\n\n"}, "data: a\r\n\r\n|data: [DONE]\n\n", 1},
		{"no mark", []string{"data: a\n\n"}, "data: a\n\n|", 1},
		{"no last blank line", []string{"data: a\n\ndata: [DONE]\n"}, "data: a\n\n|data: [DONE]\n\n", 1},
		{"more after the mark", []string{"data: a\n\ndata: [DONE]\n\ndata: late\n\n"}, "data: a\n\n|data: [DONE]\n\n", 1},
		{"nothing", nil, "|", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) { streaming(w, test.parts...) })
			x, rec, hop, _, settled := order("hi", u)
			if err := New(Config{}).Forward(context.Background(), x, hop); err != nil {
				t.Fatal(err)
			}
			receipt := `: postern-receipt {"id":"r1","model":"","units":{`
			if test.used > 0 {
				receipt += fmt.Sprintf(`"output":%d`, test.used)
			}
			receipt += `},"estimated":false,"price":"","amount":"0.000000000015","balance":"0.00"}` + "\n\n"
			if want := strings.Replace(test.want, "|", receipt, 1); rec.text() != want || !rec.ended || rec.aborted {
				t.Errorf("%q, want %q", rec.text(), want)
			}
			if len(*settled) != 1 || (*settled)[0].Units[exchange.Output] != test.used {
				t.Errorf("settled %v", *settled)
			}
		})
	}
	t.Run("filtered", func(t *testing.T) {
		u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) { streaming(w, "data: a\n\n", "data: [DONE]\n\n") })
		x, rec, hop, _, _ := order("hi", u)
		hop.Stages.(*stages).filter = upper{true}
		if err := New(Config{}).Forward(context.Background(), x, hop); err != nil || !strings.HasPrefix(rec.text(), "DATA: A\n\n") {
			t.Errorf("%q %v", rec.text(), err)
		}
	})
	t.Run("checkpoints", func(t *testing.T) {
		step := make(chan struct{})
		u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
			streaming(w, strings.Repeat("data: a\n\n", 100))
			<-step
			streaming(w, strings.Repeat("data: a\n\n", 100))
		})
		x, rec, hop, j, _ := order("hi", u)
		rec.wrote = make(chan struct{}, 1000)
		go func() {
			<-rec.wrote // the head
			<-rec.wrote
			close(step)
		}()
		if err := New(Config{}).Forward(context.Background(), x, hop); err != nil || j.checkpoints < 1 || j.checkpoints > 4 {
			t.Errorf("%d checkpoints, %v", j.checkpoints, err)
		}
	})
}

func TestModelStreamBroken(t *testing.T) {
	settled(t)
	cut := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
		streaming(w, "data: a\n\n", "data: b\n\n", "data: c")
		panic(http.ErrAbortHandler)
	})
	x, rec, hop, _, settled := order("hi", cut)
	err := New(Config{}).Forward(context.Background(), x, hop)
	if err == nil || !rec.aborted || rec.ended || rec.text() != "data: a\n\ndata: b\n\n" {
		t.Errorf("%v %+v", err, rec)
	}
	if len(*settled) != 1 || (*settled)[0].Units[exchange.Output] != 2 {
		t.Errorf("settled %v", *settled)
	}
	huge := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 3<<20))
	})
	x, rec, hop, _, settled = order("hi", huge)
	if err := New(Config{}).Forward(context.Background(), x, hop); err == nil || !rec.aborted || len(*settled) != 1 {
		t.Errorf("%v %v", err, rec.aborted)
	}
}

func TestModelDisconnect(t *testing.T) {
	settled(t)
	for mode, want := range map[string]int64{"bill_delivered": -1, "": -1, "drain": 50, "void": 0} {
		t.Run("mode "+mode, func(t *testing.T) {
			left := make(chan struct{})
			u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
				defer close(left)
				for range 50 {
					streaming(w, "data: a\n\n")
					select {
					case <-r.Context().Done():
						return
					case <-time.After(2 * time.Millisecond):
					}
				}
				streaming(w, "data: [DONE]\n\n")
			})
			x, rec, hop, _, settled := order("hi", u)
			hop.Model.OnDisconnect = mode
			rec.fail, rec.failAt = exchange.ErrClientGone, 27
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				<-time.After(20 * time.Millisecond)
				cancel()
			}()
			err := New(Config{}).Forward(ctx, x, hop)
			if !errors.Is(err, exchange.ErrClientGone) || !rec.aborted {
				t.Errorf("%v %+v", err, rec)
			}
			<-left
			if len(*settled) != 1 {
				t.Fatalf("settled %v", *settled)
			}
			got := (*settled)[0].Units[exchange.Output]
			if want >= 0 && got != want || want < 0 && (got < 3 || got >= 50) {
				t.Errorf("settled %d", got)
			}
		})
	}
}

// Many calls at once with every kind of end: each is settled at most once and nothing is left behind.
func TestModelHammer(t *testing.T) {
	settled(t)
	u := provide(t, "a", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		switch n := b[len(b)-1]; {
		case n%5 == 0:
			streaming(w, "data: a\n\n", "data: b\n\n")
			panic(http.ErrAbortHandler)
		case n%5 == 1:
			_, _ = io.WriteString(w, "usage=2 inner")
		case n%5 == 2:
			w.WriteHeader(429)
		default:
			streaming(w, "data: a\n\n", "data: b\n\n", "data: [DONE]\n\n")
		}
	})
	f := New(Config{})
	var work sync.WaitGroup
	for g := range 16 {
		work.Go(func() {
			for i := range 30 {
				x, _, hop, _, settled := order(string([]byte{'x', byte('a' + (g+i)%26)}), u)
				ctx, cancel := context.WithCancel(context.Background())
				if i%7 == 0 {
					time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
				}
				_ = f.Forward(ctx, x, hop)
				cancel()
				if len(*settled) > 1 {
					t.Errorf("settled %d times", len(*settled))
				}
			}
		})
	}
	work.Wait()
	if s := u.Status()[0]; s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func BenchmarkStream(b *testing.B) {
	event := `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"}}]}` + "\n\n"
	u := provide(b, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		out := bufio.NewWriter(w)
		for range 1000 {
			_, _ = out.WriteString(event)
		}
		_ = out.Flush()
	})
	f := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		x, _, hop, _, _ := order("hi", u)
		if err := f.Forward(context.Background(), x, hop); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}

// TestModelImages: images leave without what tells of those who took them, unless the upstream is to have that, too; one that can
// not be cleaned does not leave.
func TestModelImages(t *testing.T) {
	settled(t)
	const secret = "52.5N 13.4E"
	picture := func(comment string) string {
		b := "GIF89a\x01\x00\x01\x00\x00\x00\x00\x21\xfe" + string(byte(len(comment))) + comment + "\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b"
		return `["data:image/gif;base64,` + base64.StdEncoding.EncodeToString([]byte(b)) + `"]`
	}
	for name, c := range map[string]struct {
		body   string
		keep   bool
		sent   bool
		secret bool
	}{
		"cleaned":           {picture(secret), false, true, false},
		"kept":              {picture(secret), true, true, true},
		"not to be cleaned": {`["data:image/svg+xml;base64,PHN2Zz48IS0tIDUyLjVOIDEzLjRFIC0tPjwvc3ZnPg=="]`, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				bodies = append(bodies, string(b))
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, "usage=7")
			}))
			defer s.Close()
			u := open(t, config.Upstream{Name: "a", Retry: config.Retry{Attempts: 1}, Provider: privacy.Provider{Metadata: c.keep}}, s.URL)
			x, _, hop, j, _ := order(c.body, u)
			err := New(Config{}).Forward(context.Background(), x, hop)
			var problem *exchange.Problem
			if !c.sent {
				if !errors.As(err, &problem) || problem.Status != 400 || problem.Code != "image_metadata" || len(bodies)+len(j.begun) > 0 {
					t.Errorf("%v, sent %q, on record %v", err, bodies, j.begun)
				}
				return
			}
			if err != nil || len(bodies) != 1 {
				t.Fatalf("%v, sent %q", err, bodies)
			}
			_, encoded, _ := strings.Cut(bodies[0], "base64,")
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(encoded, `"]`))
			if err != nil || !strings.HasPrefix(string(raw), "GIF89a") || strings.Contains(string(raw), secret) != c.secret {
				t.Errorf("sent %q", raw)
			}
		})
	}
}
