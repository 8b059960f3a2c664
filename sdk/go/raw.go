package postern

import "github.com/postern-gateway/postern/sdk/abi"

// Op asks the host for an operation as sdk/ABI.md describes it, octet by octet: for one that this SDK has no method for yet. The
// result is the number of octets written to out, or a negative Error.
func (h *Host) Op(code abi.Code, in, out []byte) int64 { return h.backend.Op(code, in, out) }
