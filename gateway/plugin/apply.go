package plugin

import (
	"encoding/binary"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Apply does what a result says: it sets attributes of x, and fields of header, which are the request's, the response's
// or those of the plugin's own answer. It returns what the event's body became, in memory of its own, and whether it was
// changed at all. The answer itself, the carry and the meters are left to the caller. The result has to be checked, so
// nothing can fail halfway.
func (r *Result) Apply(x *exchange.Exchange, header *exchange.Header, body []byte) (after []byte, changed bool) {
	after = body
	cut := 0 // how much of body the splices so far have passed
	var spliced []byte
	for i := range r.Ops {
		op := &r.Ops[i]
		switch op.Code {
		case abi.OpHeaderSet:
			header.Set(r.field(op))
		case abi.OpHeaderAdd:
			header.Add(r.field(op))
		case abi.OpHeaderRemove:
			header.Del(string(op.Key))
		case abi.OpAttribute:
			value, _, _ := abi.ReadValue(op.Value)
			setAttribute(x, string(op.Key), value)
		case abi.OpBodyReplace:
			after, changed = append([]byte(nil), op.Value...), true
		case abi.OpBodyDrop:
			after, changed = nil, true
		case abi.OpBodySplice:
			at, length := int(binary.LittleEndian.Uint32(op.Value)), int(binary.LittleEndian.Uint32(op.Value[4:]))
			spliced = append(spliced, body[cut:at]...)
			spliced = append(spliced, op.Value[8:]...)
			cut, changed = at+length, true
		}
	}
	if cut > 0 || spliced != nil {
		return append(spliced, body[cut:]...), true
	}
	return after, changed
}

// textsRoom is how much memory for values is taken at a time. What is written there stays as long as any of it is
// in use, so a longer one has memory of its own.
const textsRoom = 256

// field is an operation's name and value. Values share their memory, which is what most of the work was.
func (r *Result) field(op *Op) (name, value string) {
	name, ok := r.names.Known(op.Key)
	if !ok { // another one of the same result has taken its place
		name = string(op.Key)
	}
	if len(op.Value) > textsRoom/2 {
		return name, string(op.Value)
	}
	if r.texts.Cap()-r.texts.Len() < len(op.Value) {
		r.texts = strings.Builder{}
		r.texts.Grow(textsRoom)
	}
	start := r.texts.Len()
	r.texts.Write(op.Value)
	return name, r.texts.String()[start:]
}

func setAttribute(x *exchange.Exchange, name string, value abi.Value) {
	switch name {
	case "identity.account":
		x.Identity.Account = value.Text()
	case "identity.key":
		x.Identity.Key = value.Text()
	case "identity.name":
		x.Identity.Name = value.Text()
	case "identity.scopes":
		x.Identity.Scopes = make([]string, 0, value.Len())
		for _, m := range value.Each {
			x.Identity.Scopes = append(x.Identity.Scopes, m.Text())
		}
	case "targets":
		order := make([]exchange.Target, 0, value.Len())
		for _, m := range value.Each {
			order = append(order, x.Call.Targets[m.Int()])
		}
		x.Call.Targets = order
	default:
		x.SetAttribute(name, value.Text())
	}
}
