package exchange

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestProblemJSON(t *testing.T) {
	t.Parallel()
	whole := Problem{Status: 402, Code: "insufficient_balance", Title: "The balance does not cover the call", Detail: "1 < 2", Param: "max_tokens"}
	tests := []struct {
		name    string
		problem Problem
		id      string
		want    string
	}{
		{"whole", whole, "n1-2-3", `{"type":"https://postern.example/problems/insufficient_balance","title":"The balance does not cover the call",` +
			`"status":402,"detail":"1 \u003c 2","code":"insufficient_balance","param":"max_tokens","instance":"urn:postern:exchange:n1-2-3"}`},
		{"least", Problem{Status: 404, Code: "not_found", Title: "Not found"}, "",
			`{"type":"https://postern.example/problems/not_found","title":"Not found","status":404,"code":"not_found"}`},
		{"hostile text", Problem{Status: 400, Code: "invalid", Title: "Invalid", Detail: "a\"\r\n\xff"}, "i",
			`{"type":"https://postern.example/problems/invalid","title":"Invalid","status":400,"detail":"a\"\r\n\ufffd","code":"invalid",` +
				`"instance":"urn:postern:exchange:i"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := string(test.problem.JSON(test.id)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestAtEnd(t *testing.T) {
	t.Parallel()
	if !AtEnd(io.EOF) {
		t.Error("io.EOF is not the end")
	}
	for _, err := range []error{nil, io.ErrUnexpectedEOF, errors.New("EOF"), fmt.Errorf("%w: %w", ErrClientGone, io.EOF)} {
		if AtEnd(err) {
			t.Errorf("%v is taken for the end", err)
		}
	}
}
