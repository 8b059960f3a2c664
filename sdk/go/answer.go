package postern

import "github.com/postern-gateway/postern/sdk/abi"

// Answer is what came of a Fetch. It points into the frame and is valid until On returns.
type Answer struct {
	Status int    // of the HTTP response, 200 to 599; 0 when there was none
	Error  string // why there was none: one of abi.FetchDenied and its like; empty when there was one
	Cached bool   // the answer had been given to the same request before
	Body   []byte // as it came: nothing is decompressed
	fields Value
}

// OK reports that an answer came and its status is 2xx.
func (a Answer) OK() bool { return a.Error == "" && a.Status >= 200 && a.Status <= 299 }

// Header is the value of a header field of the answer, by its name in lower case; ok tells absent from empty. Several fields
// of a name are one, joined by ", "; those of set-cookie by a line feed.
func (a Answer) Header(name string) (value []byte, ok bool) {
	v := a.fields.Member(name)
	return v.Bytes(), v.Kind() == abi.KindString
}

// Fields yields name and value of every header field of the answer.
func (a Answer) Fields(yield func(name, value []byte) bool) {
	for name, v := range a.fields.Each {
		if !yield(name, v.Bytes()) {
			return
		}
	}
}

// Answer is what came of the Fetch of that name, with EventFetched; ok is false when none had the name.
func (e *Event) Answer(name string) (a Answer, ok bool) {
	v := e.answers().Member(name)
	return answer(v), v.Kind() == abi.KindObject
}

// Answers yields what came of every Fetch, in the order they were asked for.
func (e *Event) Answers(yield func(name []byte, a Answer) bool) {
	for name, v := range e.answers().Each {
		if !yield(name, answer(v)) {
			return
		}
	}
}

func (e *Event) answers() Value {
	if e.Kind != abi.EventFetched {
		return Value{}
	}
	body, _ := e.Body()
	v, _, _ := abi.ReadValue(body)
	return v
}

func answer(v Value) Answer {
	return Answer{
		Status: int(v.Member("status").Int()), Error: String(v.Member("error").Bytes()), Cached: v.Member("cached").Bool(),
		Body: v.Member("body").Bytes(), fields: v.Member("headers"),
	}
}
