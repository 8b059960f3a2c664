package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busy is a server that does so many things at once as it has places, each for a while; who comes above that waits.
type busy struct {
	places  chan struct{}
	service time.Duration
	asked   atomic.Int64
}

func (b *busy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.asked.Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	b.places <- struct{}{}
	defer func() { <-b.places }()
	time.Sleep(b.service)
	_, _ = io.WriteString(w, "done")
}

// answers are how long it took to get them, by status.
type answers struct {
	mu   sync.Mutex
	took map[int][]time.Duration
	bad  []string
}

// median is the middle one of a status.
func (a *answers) median(status int) time.Duration {
	list := a.took[status]
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// offer has n clients ask for url again and again for a time; who is refused comes back a moment later.
func offer(n int, url string, d time.Duration) *answers {
	a := &answers{took: map[int][]time.Duration{}}
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var work sync.WaitGroup
	for range n {
		work.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				resp, err := c.Get(url)
				if err != nil {
					a.mu.Lock()
					a.bad = append(a.bad, err.Error())
					a.mu.Unlock()
					return
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				took := time.Since(begun)
				retry, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
				a.mu.Lock()
				a.took[resp.StatusCode] = append(a.took[resp.StatusCode], took)
				if resp.StatusCode == 503 && (retry < 1 || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(text), "overloaded")) {
					a.bad = append(a.bad, fmt.Sprintf("refused with retry-after %d: %s", retry, text))
				}
				a.mu.Unlock()
				if resp.StatusCode != 200 {
					time.Sleep(300 * time.Millisecond)
				}
			}
		})
	}
	work.Wait()
	return a
}

// TestExampleOverload: a server that does 8 things at a time is asked for ten times as much. It serves as much as when it is
// asked for just what it can do, those who are let in wait for a small part of what they would without a limit, and the
// others are told when to come back. It measures, so no other test of this package runs beside it.
func TestExampleOverload(t *testing.T) {
	run := func(replace ...string) (*node, *busy) {
		b := &busy{places: make(chan struct{}, 8), service: 50 * time.Millisecond}
		s := httptest.NewServer(b)
		t.Cleanup(s.Close)
		return startIn(t, example(t, "overload", append([]string{"http://127.0.0.1:9001", s.URL, "256MiB", "1TiB"}, replace...)...)), b
	}
	n, _ := run()
	open, _ := run("    min       = 4\n    initial   = 32\n    tolerance = 2\n", "    adaptive = false\n    max = 4096\n")
	url := "http://" + n.address + "/"
	if got := strings.Fields(n.told(t, "examples/overload/README.md", "curl")); len(got) != 1 || got[0] != "200" {
		t.Errorf("a report: %q", got)
	}
	const d = 3 * time.Second
	enough := offer(8, url, d)
	offer(80, url, 2*d) // the limit is found
	tenfold, without := offer(80, url, d), offer(80, "http://"+open.address+"/", d)
	for _, a := range []*answers{enough, tenfold, without} {
		for _, b := range a.bad[:min(3, len(a.bad))] {
			t.Error(b)
		}
	}
	if had, has := len(enough.took[200]), len(tenfold.took[200]); has < had*7/10 {
		t.Errorf("served %d when asked for what it can do, and %d when asked for ten times as much", had, has)
	}
	if len(enough.took[503]) > 0 || len(tenfold.took[503]) == 0 || len(without.took[503]) > 0 {
		t.Errorf("refused %d of what it can do, %d of ten times as much, %d without a limit", len(enough.took[503]), len(tenfold.took[503]), len(without.took[503]))
	}
	if with, was := tenfold.median(200), without.median(200); with > was*6/10 {
		t.Errorf("who was let in waited %s, and %s without a limit", with, was)
	}
	if refused, was := tenfold.median(503), without.median(200); refused > was {
		t.Errorf("a refusal took %s", refused)
	}
	s := n.Overload()
	if app := s.Upstreams["app"]; app.Refused == 0 || app.InFlight != 0 || app.Limit > 64 || s.Gateway.InFlight != 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("8 clients: %d served, median %s. 80: %d served, median %s; %d refused, median %s. 80 without a limit: %d served, median %s. Limit %d",
		len(enough.took[200]), enough.median(200), len(tenfold.took[200]), tenfold.median(200), len(tenfold.took[503]), tenfold.median(503),
		len(without.took[200]), without.median(200), s.Upstreams["app"].Limit)
}

// attacker opens a connection and sends text, which need not be whole.
func attacker(t *testing.T, address, text string) net.Conn {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, text)
	return c
}

// TestSlowClientsCostLittle: idle connections, heads and bodies that never end and replies that nobody reads, hundreds of
// each. The process stays small, a client that behaves gets its answers about as soon as before, and who sends too slowly is
// told so. It measures, so no other test of this package runs beside it.
func TestSlowClientsCostLittle(t *testing.T) {
	bin := t.TempDir()
	programs(t, bin)
	big := make([]byte, 8<<20)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			_, _ = w.Write(big)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(app.Close)
	listen := freePort(t)
	dir := example(t, "overload", "http://127.0.0.1:9001", app.URL, "127.0.0.1:8080", listen)
	process := launch(t, dir, os.Environ(), filepath.Join(bin, "bin", "postern"), "run", dir)
	url := "http://" + listen + "/"
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(url); err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not answer")
		}
	}
	resident := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.cmd.Process.Pid))
		if err != nil {
			t.Skip("the memory of a process can not be read here")
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		kib, _ := strconv.Atoi(strings.Fields(rest)[0])
		return kib
	}
	before := offer(4, url, 2*time.Second)

	var slow []net.Conn
	for range 300 {
		attacker(t, listen, "")
		attacker(t, listen, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		slow = append(slow, attacker(t, listen, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"))
		attacker(t, listen, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	stop := make(chan struct{})
	var trickle sync.WaitGroup
	trickle.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			for _, c := range slow {
				_, _ = c.Write([]byte("x"))
			}
		}
	})
	during := offer(4, url, 4*time.Second)
	most := resident()
	for _, a := range []*answers{before, during} {
		for _, b := range a.bad[:min(3, len(a.bad))] {
			t.Error(b)
		}
		// The attack comes all at once, and the limit may turn away one or the other who comes just then.
		if served := len(a.took[200]); served == 0 || len(a.took[503]) > served/100 {
			t.Errorf("a client that behaves was answered %d times 200, %d times 503", len(a.took[200]), len(a.took[503]))
		}
	}
	if t.Failed() {
		return
	}
	share := func(a *answers) time.Duration { a.median(200); return a.took[200][len(a.took[200])*99/100] }
	t.Logf("p99 before %s, during %s; median before %s, during %s; resident %d KiB", share(before), share(during), before.median(200), during.median(200), most)
	if was, is := before.median(200), during.median(200); is > 2*was {
		t.Errorf("half of the answers took more than %s, and %s before the attack", is, was)
	}
	if was, is := share(before), share(during); is > 4*was { // p99 of a loaded machine is noise up to here
		t.Errorf("one in a hundred answers took more than %s, and %s before the attack", is, was)
	}
	if most > 256<<10 {
		t.Errorf("%d KiB resident", most)
	}
	// At five octets a second they are cut off after about five seconds, with a 408.
	told := 0
	for _, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		text, err := io.ReadAll(c)
		if strings.HasPrefix(string(text), "HTTP/1.1 408 ") {
			told++
		} else if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a client that sends five octets a second is never cut off")
			break
		}
	}
	close(stop)
	trickle.Wait()
	if told == 0 { // some were refused at once, and many saw a reset before they could read the reply
		t.Errorf("none of %d slow clients was told 408", len(slow))
	}
}
