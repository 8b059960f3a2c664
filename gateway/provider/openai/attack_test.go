package openai

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/provider"
)

func TestTmpLong(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"model":"m","messages":[]`)
	for i := range 120 {
		fmt.Fprintf(&b, `,"%s%03d":1`, strings.Repeat(`\u0061`, 80_000/6), i)
	}
	b.WriteString("}")
	body := []byte(b.String())
	s := time.Now()
	_, p := New().Read(provider.Operation{Name: chat, Billed: true}, nil, body, 0)
	t.Log(len(body), time.Since(s), p)
	_ = exchange.Input
}
