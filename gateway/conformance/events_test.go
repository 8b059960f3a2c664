package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestEventStreams opens many streams of server-sent events through the gateway, of which nearly all are silent: an event that is
// sent on one gets through at once and to nobody else, and a stream costs the gateway little.
func TestEventStreams(t *testing.T) {
	if raceDetector && whole() {
		t.Skip("the clients' side takes too much memory under the race detector")
	}
	for _, test := range []struct {
		name     string
		upstream string // what the gateway speaks with the origin
		open     func(t *testing.T, address string, n int) []*stream
		sockets  int // that a stream takes of the gateway's, in hundredths
		most     int // what a silent stream may cost the gateway, in octets of resident memory
	}{
		{"http1", "http1", overHTTP1, 200, 32 << 10},
		{"http2", "http2", overHTTP2, 2, 32 << 10},
		{"http2-to-http1", "http1", overHTTP2, 101, 32 << 10},
		// A connection of its own and a goroutine of the standard client of HTTP/2.
		{"http1-to-http2", "http2", overHTTP1, 101, 40 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := streams(t, test.sockets)
			origin := startOrigin(t)
			g := started(t, map[string]string{"config.hcl": `
state "memory" {
}

telemetry {
  log {
    format = text
    access = false
  }
}

listener "public" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2]
  drain     = "0s"

  limits {
    connections = 100000
  }
}

upstream "events" {
  endpoints = ["http://` + origin + `"]
  protocol  = ` + test.upstream + `

  timeouts {
    idle = "1h"
  }

  pool {
    connections = 100000
  }
}

route "events" {
  listener = listener.public
  match    = "/events/{id}"
  upstream = upstream.events
  timeout  = "0s"
}
`})
			address := g.addresses["public"]
			// What the first streams make it set up is no stream's.
			for _, s := range test.open(t, address, 50) {
				s.Close()
			}
			before := resident(t, g.process.Pid)
			all := test.open(t, address, n)
			t.Cleanup(func() {
				for _, s := range all {
					s.Close()
				}
			})
			each := (resident(t, g.process.Pid) - before) / n
			t.Logf("%d streams, %.1f KiB of resident memory each; %.1f MiB before", n, float64(each)/1024, float64(before)/(1<<20))
			if each > test.most {
				t.Errorf("a silent stream takes %d octets, more than %d", each, test.most)
			}
			if path := os.Getenv("POSTERN_CONFORMANCE_HOLD"); path != "" {
				hold(t, path, g.process.Pid)
			}
			// Every seventh gets an event, three times.
			for round := range 3 {
				tell(t, origin, "7", strconv.Itoa(round))
				for i, s := range all {
					if i%7 == 0 {
						s.expect(t, fmt.Sprintf("data: %d %d\n\n", i, round))
					}
				}
			}
			// Then all do: whoever had got something that was not for it would not get this next.
			tell(t, origin, "1", "last")
			for i, s := range all {
				s.expect(t, fmt.Sprintf("data: %d last\n\n", i))
			}
		})
	}
}

// streams is how many to open: 10,000, or as many as the process may have sockets for; fewer in the short form.
func streams(t *testing.T, sockets int) int {
	t.Helper()
	if !whole() {
		return 2000
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const rest = 100 // what else the gateway has open
	if most := (int(min(limit.Max, 1<<20)) - rest) * 100 / sockets; most < 10_000 {
		t.Logf("the limit of open files, %d, allows %d streams", limit.Max, most)
		return most
	}
	return 10_000
}

// resident is a process's resident memory in octets.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("resident memory is read from Linux's /proc")
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib int
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// hold waits until a file is there, so that somebody can look at the gateway meanwhile.
func hold(t *testing.T, path string, pid int) {
	t.Logf("the gateway is process %d; waiting for %s", pid, path)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// stream is a client's stream of events.
type stream struct {
	body   io.Reader
	closer io.Closer
	limit  func(time.Time) error // for the next read; nil: none
}

// Close leaves it.
func (s *stream) Close() { _ = s.closer.Close() }

// expect reads the next event.
func (s *stream) expect(t *testing.T, event string) {
	t.Helper()
	if s.limit != nil {
		_ = s.limit(time.Now().Add(30 * time.Second))
	}
	got := make([]byte, len(event))
	if n, err := io.ReadFull(s.body, got); err != nil || string(got) != event {
		t.Fatalf("got %q, want %q: %v", got[:n], event, err)
	}
}

// together opens n streams, a few at a time, and reads each one's first event.
func together(t *testing.T, n int, open func(i int) (*stream, error)) []*stream {
	t.Helper()
	all := make([]*stream, n)
	var workers sync.WaitGroup
	var failed sync.Once
	next := make(chan int)
	for range 32 {
		workers.Go(func() {
			for i := range next {
				s, err := open(i)
				if err != nil {
					failed.Do(func() { t.Errorf("stream %d: %v", i, err) })
					continue
				}
				all[i] = s
				first := fmt.Appendf(nil, "data: %d first\n\n", i)
				got := make([]byte, len(first))
				if _, err := io.ReadFull(s.body, got); err != nil || !bytes.Equal(got, first) {
					failed.Do(func() { t.Errorf("stream %d began with %q: %v", i, got, err) })
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	if t.Failed() {
		for _, s := range all {
			if s != nil {
				s.Close()
			}
		}
		t.FailNow()
	}
	return all
}

// overHTTP1 opens each stream on a connection of its own.
func overHTTP1(t *testing.T, address string, n int) []*stream {
	t.Helper()
	return together(t, n, func(i int) (*stream, error) {
		// A few source addresses have ports enough for all.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))}, Timeout: 30 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := fmt.Fprintf(c, "GET /events/%d HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", i); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1024), nil)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			_ = c.Close()
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			return nil, fmt.Errorf("%s: %s", resp.Status, text)
		}
		return &stream{body: resp.Body, closer: c, limit: c.SetDeadline}, nil
	})
}

// overHTTP2 opens a hundred streams on each connection.
func overHTTP2(t *testing.T, address string, n int) []*stream {
	t.Helper()
	transports := make([]*http.Transport, n/100+1)
	for i := range transports {
		transports[i] = &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true}}
		transports[i].Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(transports[i].CloseIdleConnections)
	}
	return together(t, n, func(i int) (*stream, error) {
		ctx, cancel := context.WithCancel(t.Context())
		late := time.AfterFunc(30*time.Second, cancel)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/events/%d", address, i), nil)
		if err != nil {
			return nil, err
		}
		resp, err := transports[i/100].RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			return nil, errors.New(resp.Proto + " " + resp.Status)
		}
		return &stream{body: resp.Body, closer: closer(cancel), limit: func(at time.Time) error {
			late.Reset(time.Until(at))
			return nil
		}}, nil
	})
}

type closer func()

// Close calls it.
func (c closer) Close() error {
	c()
	return nil
}

// tell has the origin send an event on every so manieth stream.
func tell(t *testing.T, origin, every, word string) {
	t.Helper()
	resp, err := http.Post("http://"+origin+"/tell/"+every+"/"+word, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp.Status)
	}
}

// startOrigin runs an origin of events in a process of its own, for it needs as many sockets as there are streams.
func startOrigin(t *testing.T) (address string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=origin")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatal(err)
	}
	return address
}

// eventOrigin says its address and serves streams: /events/ID begins one, with a first event; /tell/N/WORD sends WORD on every Nth.
func eventOrigin(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	var mu sync.Mutex
	open := map[int]chan string{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		words := make(chan string, 8)
		mu.Lock()
		open[id] = words
		mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		for word := "first"; ; {
			if _, err := fmt.Fprintf(w, "data: %d %s\n\n", id, word); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush() // errors come up with the next write
			select {
			case word = <-words:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /tell/{every}/{word}", func(w http.ResponseWriter, r *http.Request) {
		every, err := strconv.Atoi(r.PathValue("every"))
		if err != nil || every < 1 {
			http.NotFound(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for id, words := range open {
			if id%every == 0 {
				words <- r.PathValue("word")
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := &http.Server{Handler: mux, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	return s.Serve(l)
}
