package proxy

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/upstream"
)

// isGRPC reports whether a message is of gRPC or gRPC-Web.
func isGRPC(h exchange.Header) bool {
	return strings.HasPrefix(h.Get("content-type"), "application/grpc")
}

// grpcDeadline is when the caller of x gives up, by its grpc-timeout: at most eight digits and a unit. Zero: it does not say.
func grpcDeadline(x *exchange.Exchange) time.Time {
	text := x.Request.Header.Get("grpc-timeout")
	if len(text) < 2 || len(text) > 9 {
		return time.Time{}
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil {
		return time.Time{}
	}
	var unit time.Duration
	switch text[len(text)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return time.Time{}
	}
	if n > uint64(24*365*time.Hour/unit) {
		return time.Time{} // as good as none
	}
	return x.Start.Add(time.Duration(n) * unit)
}

// expired reports whether an upstream broke a call of gRPC off because its time was over. The caller is told so in gRPC's
// words: it may not have noticed yet, and would take anything else for a fault.
func expired(x *exchange.Exchange, err error) bool {
	var e *upstream.Error
	return errors.As(err, &e) && e.Kind == upstream.Expired && isGRPC(x.Request.Header)
}

// tooLate answers with the status alone.
func tooLate(x *exchange.Exchange) error {
	h := append(exchange.Header{{Name: "content-type", Value: x.Request.Header.Get("content-type")}}, grpcStatus()...)
	x.Response = exchange.Response{Status: 200, Header: h, Body: exchange.NoBody, Started: true}
	if err := x.Reply.Head(x.Response.Status, h, 0); err != nil {
		return gone(err)
	}
	return finish(x, nil)
}

// grpcStatus says DEADLINE_EXCEEDED.
func grpcStatus() exchange.Header {
	return exchange.Header{{Name: "grpc-status", Value: "4"}, {Name: "grpc-message", Value: "deadline exceeded"}}
}
