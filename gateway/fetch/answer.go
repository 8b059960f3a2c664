package fetch

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Answer is what came of one fetch. Answers can be shared, so nothing of one is ever changed.
type Answer struct {
	Status int             // 0 when there was none
	Error  string          // why there was none: one of abi.FetchDenied and its like
	Cached bool            // it had been given to the same request before
	Header exchange.Header // each name once, in ascending order
	Body   []byte
}

// size is what the answer holds, in octets.
func (a *Answer) size() int64 {
	n := int64(len(a.Body))
	for _, f := range a.Header {
		n += int64(len(f.Name) + len(f.Value))
	}
	return n
}

// outcome is the answer's word in the metrics.
func (a *Answer) outcome() string {
	switch {
	case a.Error != "":
		return a.Error
	case a.Cached:
		return "cached"
	}
	return strconv.Itoa(a.Status/100) + "xx"
}

// Append appends the value that tells a plugin what came of its fetches, in their order.
func Append(b []byte, names []string, answers []Answer) []byte {
	b = abi.AppendObject(b, len(names))
	for i, name := range names {
		a := &answers[i]
		b = abi.AppendObject(abi.AppendKey(b, name), 5)
		b = abi.AppendInt(abi.AppendKey(b, "status"), int64(a.Status))
		b = abi.AppendString(abi.AppendKey(b, "error"), a.Error)
		b = abi.AppendBool(abi.AppendKey(b, "cached"), a.Cached)
		b = abi.AppendObject(abi.AppendKey(b, "headers"), len(a.Header))
		for _, f := range a.Header {
			b = abi.AppendString(abi.AppendKey(b, f.Name), f.Value)
		}
		b = abi.AppendString(abi.AppendKey(b, "body"), unsafe.String(unsafe.SliceData(a.Body), len(a.Body)))
	}
	return b
}

// errHead is an answer's head that is larger than is taken.
var errHead = errors.New("the answer's head is too large")

// tidy makes the fields of an answer what a plugin is shown of them.
func tidy(h exchange.Header) (exchange.Header, error) {
	size := 0
	for _, f := range h {
		if size += len(f.Name) + len(f.Value); size > maxHead {
			return nil, errHead
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, errors.New("the answer has a field that can not be passed on")
		}
	}
	sorted := slices.DeleteFunc(slices.Clone(h), func(f exchange.Field) bool { return connection(f.Name) })
	slices.SortStableFunc(sorted, func(x, y exchange.Field) int { return strings.Compare(x.Name, y.Name) })
	tidied := sorted[:0]
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n].Name == sorted[0].Name {
			n++
		}
		tidied = append(tidied, exchange.Field{Name: sorted[0].Name, Value: join(sorted[:n])})
		sorted = sorted[n:]
	}
	return tidied, nil
}

// join makes one value of all that a name has.
func join(fields exchange.Header) string {
	if len(fields) == 1 {
		return fields[0].Value
	}
	between := ", "
	if fields[0].Name == "set-cookie" { // the one that can not be joined by a comma, says RFC 9110 section 5.3
		between = "\n"
	}
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(f.Value)
	}
	return b.String()
}

// connection says which fields speak of one connection only (RFC 9110 section 7.6.1).
func connection(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}
