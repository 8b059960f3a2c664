package http1

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/caller"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// faulty is a connection that panics where the engine does not expect it.
type faulty struct{ script }

func (*faulty) Write([]byte) (int, error) { panic("broken write") }

// TestFault keeps a fault of the engine to its connection: it is logged with its stack, and the connection is cut.
func TestFault(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := NewServer(caller.Service{
		Log: slog.New(slog.NewTextHandler(&log, nil)), NewID: func() string { return "x" }, Refused: func(string, string) {},
		Handler: func(context.Context, *exchange.Exchange) { t.Error("the handler is shown what was refused") },
	})
	conn, o := &faulty{script{octets: []byte("GET\r\n\r\n"), piece: 100}}, generous()
	s.Conn(conn, nil, &caller.Peer{Connection: o}).Serve(t.Context())
	if !conn.closed || o.reset != 1 || !strings.Contains(log.String(), "broken write") || !strings.Contains(log.String(), "conn.go") {
		t.Errorf("closed %v, reset %d, logged %q", conn.closed, o.reset, log.String())
	}
}
