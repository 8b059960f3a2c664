//go:build linux

package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// visitor is one HTTP/3 stream at a time. QUIC has its own goroutines, so these clients are goroutines too; only the origin is in
// the loop.
type visitor struct {
	r     *run
	conn  *http3.ClientConn
	due   <-chan int64 // with a rate: when requests are due
	over  *atomic.Bool // the window is over
	total *atomic.Int64
}

// taken is a reply: when it was due and when it was there, in the clock of the run.
type taken struct{ due, done int64 }

func (l *Loop) runHTTP3(r *run) (Result, error) {
	if r.Method != "GET" || r.Events {
		return Result{}, errors.New("over HTTP/3 only plain GETs can be sent")
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Warm+10*r.Window+stop)
	defer cancel()
	var over atomic.Bool
	var total atomic.Int64
	due := make(chan int64, 1<<12)
	var wait sync.WaitGroup
	defer wait.Wait()
	errs := make(chan error, r.Conns*max(r.Streams, 1))
	lists := make([][]taken, r.Conns*max(r.Streams, 1))
	var ends []func()
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	r.began = time.Now()
	for n := range r.Conns {
		conn, end, err := dialHTTP3(ctx, r.Address)
		if err != nil {
			over.Store(true)
			close(due)
			return Result{}, err
		}
		ends = append(ends, end)
		for k := range max(r.Streams, 1) {
			at := n*max(r.Streams, 1) + k
			v := visitor{r: r, conn: conn, due: due, over: &over, total: &total}
			wait.Add(1)
			go func() {
				defer wait.Done()
				var err error
				if lists[at], err = v.visit(ctx); err != nil {
					errs <- err
				}
			}()
		}
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	began, ended, err := l.pace(r, due, errs, &total)
	over.Store(true)
	close(due)
	if err != nil {
		cancel()
	}
	for waiting := true; waiting; { // the origin is needed until the last reply
		if pumped := l.pump(1); pumped != nil && err == nil {
			err = pumped
			cancel()
		}
		select {
		case <-done:
			waiting = false
		default:
		}
	}
	select {
	case late := <-errs:
		if err == nil {
			err = late
		}
	default:
	}
	if err != nil {
		return Result{}, err
	}
	for _, list := range lists {
		for _, t := range list {
			if t.done >= began && t.done < ended {
				r.taken = append(r.taken, t.done-t.due)
			}
		}
	}
	return r.result(time.Duration(ended - began)), nil
}

// pace runs the origin, marks the window, and says when requests are due.
func (l *Loop) pace(r *run, due chan<- int64, errs <-chan error, total *atomic.Int64) (began, ended int64, err error) {
	began = -1
	before := int64(0)
	next, interval := r.now(), int64(0)
	if r.Rate > 0 {
		interval = int64(float64(time.Second) / r.Rate)
	}
	for {
		if err := l.pump(1); err != nil {
			return 0, 0, err
		}
		select {
		case err := <-errs:
			return 0, 0, err
		default:
		}
		now := r.now()
		for ; interval > 0 && next <= now; next += interval {
			select {
			case due <- next:
			default:
				return 0, 0, fmt.Errorf("%d requests wait to be sent: the rate is beyond what there is", cap(due))
			}
		}
		switch {
		case began < 0 && now >= int64(r.Warm):
			l.mark()
			began, before = r.now(), total.Load()
		case began >= 0 && r.over(now-began, int(total.Load()-before)):
			l.mark()
			return began, r.now(), nil
		}
	}
}

// visit sends requests until the window is over.
func (v visitor) visit(ctx context.Context) (list []taken, err error) {
	for !v.over.Load() && (v.r.Limit == 0 || len(list) < v.r.Limit) {
		due := v.r.now()
		if v.r.Rate > 0 {
			var more bool
			if due, more = <-v.due; !more {
				return list, nil
			}
		}
		if err := v.get(ctx); err != nil {
			return list, err
		}
		list = append(list, taken{due: due, done: v.r.now()})
		v.total.Add(1)
	}
	return list, nil
}

func (v visitor) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost"+v.r.Path, nil)
	if err != nil {
		return err
	}
	req.Header = http.Header{"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}, "Accept": {"*/*"}, "Accept-Language": {"en"}, "Accept-Encoding": {"identity"}}
	resp, err := v.conn.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("HTTP/3: %w", err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("HTTP/3: %w", err)
	}
	if resp.StatusCode != http.StatusOK || v.r.Length >= 0 && n != int64(v.r.Length) {
		return fmt.Errorf("the proxy sends %s and %d octets instead of %d", resp.Status, n, v.r.Length)
	}
	return nil
}

func dialHTTP3(ctx context.Context, address string) (conn *http3.ClientConn, end func(), err error) {
	to, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, nil, err
	}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	transport := &quic.Transport{Conn: udp}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, ServerName: "localhost", MinVersion: tls.VersionTLS13} //nolint:gosec // its own certificate
	c, err := transport.Dial(ctx, to, config, &quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		_ = errors.Join(transport.Close(), udp.Close()) // what failed is said already
		return nil, nil, fmt.Errorf("dial the proxy over QUIC: %w", err)
	}
	return (&http3.Transport{}).NewClientConn(c), func() {
		_ = errors.Join(c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), ""), transport.Close(), udp.Close()) // nothing to lose
	}, nil
}
