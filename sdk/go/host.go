package postern

import (
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
)

// Backend carries calls to the host: the gateway in a module, sdk/plugintest under go test.
type Backend interface {
	// Log writes a line to the gateway's log.
	Log(level int, message string)
	// Op does what code asks with in and writes the answer to out; the result is the number of octets written, or a
	// negative abi error.
	Op(code abi.Code, in, out []byte) int64
}

// Error is why the host did not do what was asked.
type Error int64

// The errors of Host's methods.
const (
	ErrNotFound     Error = abi.ErrNotFound     // no such key, account or hold
	ErrConflict     Error = abi.ErrConflict     // CAS: the stored value differs
	ErrDenied       Error = abi.ErrDenied       // the operator did not grant what this needs
	ErrInvalid      Error = abi.ErrInvalid      // malformed or too large
	ErrTooSmall     Error = abi.ErrTooSmall     // the answer is larger than the host gives
	ErrUnavailable  Error = abi.ErrUnavailable  // the host can not do it now
	ErrInsufficient Error = abi.ErrInsufficient // Hold: the balance does not cover it
	ErrExpired      Error = abi.ErrExpired      // Key: revoked or expired
	ErrLimit        Error = abi.ErrLimit        // too many calls in one event, or the plugin's state is full
	ErrUnknown      Error = abi.ErrUnknown      // the host is too old for this
)

// Error says it in words.
func (e Error) Error() string {
	switch e {
	case ErrNotFound:
		return "not found"
	case ErrConflict:
		return "the stored value differs"
	case ErrDenied:
		return "not granted"
	case ErrInvalid:
		return "malformed or too large"
	case ErrTooSmall:
		return "answer too large"
	case ErrUnavailable:
		return "not available now"
	case ErrInsufficient:
		return "insufficient balance"
	case ErrExpired:
		return "revoked or expired"
	case ErrLimit:
		return "too many calls, or no room left"
	}
	return "not known to the host"
}

// Host is what a plugin may ask while it runs. What a method returns is valid until the next call of a method; a method
// that needs a grant says which. Every event may make at most abi.MaxOps calls.
type Host struct {
	backend Backend
	in, out []byte
}

// NewHost returns a Host over b, for tests of code that takes one.
func NewHost(b Backend) *Host {
	return &Host{backend: b, in: make([]byte, 0, 1<<10), out: make([]byte, 4<<10)}
}

func (h *Host) call(code abi.Code, in []byte) ([]byte, error) {
	h.in = in[:0]
	n := h.backend.Op(code, in, h.out)
	if n == abi.ErrTooSmall && len(h.out) < abi.MaxAnswer {
		h.out = make([]byte, abi.MaxAnswer)
		n = h.backend.Op(code, in, h.out)
	}
	if n < 0 {
		return nil, Error(n)
	}
	if n > int64(len(h.out)) {
		return nil, ErrTooSmall
	}
	return h.out[:n], nil
}

// Debug, Info, Warn and Error below write a line to the gateway's log under the plugin's name. Lines are cut at 1 KiB, and
// an event may write 8 KiB. Write no personal data and no secrets.
func (h *Host) Debug(message string) { h.backend.Log(abi.LogDebug, message) }

// Info logs at level info.
func (h *Host) Info(message string) { h.backend.Log(abi.LogInfo, message) }

// Warn logs at level warn.
func (h *Host) Warn(message string) { h.backend.Log(abi.LogWarn, message) }

// Error logs at level error.
func (h *Host) Error(message string) { h.backend.Log(abi.LogError, message) }

// Time is the wall clock in nanoseconds since 1970. Event.Time is nearer and mostly enough.
func (h *Host) Time() (int64, error) {
	out, err := h.call(abi.CodeTime, h.in[:0])
	if err != nil || len(out) < 8 {
		return 0, err
	}
	return int64(u64(out)), nil
}

// Random fills b, at most 4 KiB, with octets fit for keys.
func (h *Host) Random(b []byte) error {
	if n := h.backend.Op(abi.CodeRandom, nil, b); n < 0 {
		return Error(n)
	}
	return nil
}

// Get reads from the plugin's state on this node (grant state). ErrNotFound when the key is not there or its time is over.
func (h *Host) Get(key []byte) ([]byte, error) { return h.call(abi.CodeGet, append(h.in[:0], key...)) }

// Put writes to the plugin's state; a ttl of 0 keeps it until it is deleted or the gateway stops (grant state).
func (h *Host) Put(key, value []byte, ttl time.Duration) error {
	in := appendU32(appendU64(h.in[:0], uint64(ttl)), uint32(len(key)))
	_, err := h.call(abi.CodePut, append(append(in, key...), value...))
	return err
}

// CAS writes value only when what is stored is old, nil meaning nothing; else ErrConflict (grant state).
func (h *Host) CAS(key, old, value []byte, ttl time.Duration) error {
	in := appendU32(appendU64(h.in[:0], uint64(ttl)), uint32(len(key)))
	if old == nil {
		in = appendU32(in, abi.NoValue)
	} else {
		in = appendU32(in, uint32(len(old)))
	}
	_, err := h.call(abi.CodeCAS, append(append(append(in, key...), old...), value...))
	return err
}

// Delete removes a key from the plugin's state; removing what is not there is no error (grant state).
func (h *Host) Delete(key []byte) error {
	_, err := h.call(abi.CodeDelete, append(h.in[:0], key...))
	return err
}

// Count adds delta to a counter and returns its new value. A counter begins at 0; ttl counts from its first use (grant state).
func (h *Host) Count(key []byte, delta int64, ttl time.Duration) (int64, error) {
	in := appendU64(appendU64(h.in[:0], uint64(delta)), uint64(ttl))
	out, err := h.call(abi.CodeCount, append(in, key...))
	if err != nil || len(out) < 8 {
		return 0, err
	}
	return int64(u64(out)), nil
}

// CacheGet reads from the caller's account's part of the plugin's cache (grant cache). ErrNotFound when the key is not there
// or its time is over; ErrUnavailable when the caller has no account.
func (h *Host) CacheGet(key []byte) ([]byte, error) {
	return h.call(abi.CodeCacheGet, append(h.in[:0], key...))
}

// CachePut writes to the caller's account's part of the plugin's cache (grant cache), where the least used makes room. The ttl is
// more than 0. ErrUnavailable when the caller has no account; ErrLimit when the value is larger than the whole cache.
func (h *Host) CachePut(key, value []byte, ttl time.Duration) error {
	in := appendU32(appendU64(h.in[:0], uint64(ttl)), uint32(len(key)))
	_, err := h.call(abi.CodeCachePut, append(append(in, key...), value...))
	return err
}

// Identity is who an API key belongs to.
type Identity struct {
	Account []byte
	Key     []byte // the key's id, which is no secret
	Name    []byte
	Scopes  Value // a list of strings
}

// Key finds who a presented API key belongs to (grant accounts). ErrNotFound: no such key; ErrExpired: revoked, expired, or
// its account is closed.
func (h *Host) Key(presented []byte) (Identity, error) {
	out, err := h.call(abi.CodeKey, append(h.in[:0], presented...))
	if err != nil {
		return Identity{}, err
	}
	v, _, _ := abi.ReadValue(out)
	return Identity{
		Account: v.Member("account").Bytes(), Key: v.Member("key").Bytes(),
		Name: v.Member("name").Bytes(), Scopes: v.Member("scopes"),
	}, nil
}

// Hold reserves the most a call can cost (grant ledger): max is the attribute usage.max. It returns the hold's id and the
// amount in the ledger's currency, a decimal. ErrInsufficient: the balance does not cover it; ErrNotFound: no such account.
func (h *Host) Hold(account, model []byte, max Value) (hold, amount []byte, err error) {
	in := abi.AppendObject(h.in[:0], 3)
	in = abi.AppendString(abi.AppendKey(in, "account"), String(account))
	in = abi.AppendString(abi.AppendKey(in, "model"), String(model))
	in = appendValue(abi.AppendKey(in, "max"), max)
	out, err := h.call(abi.CodeHold, in)
	if err != nil {
		return nil, nil, err
	}
	v, _, _ := abi.ReadValue(out)
	return v.Member("hold").Bytes(), v.Member("amount").Bytes(), nil
}

// Receipt is what a call cost.
type Receipt struct {
	Amount  []byte // decimal, in the ledger's currency
	Balance []byte // what is left and not held
}

// Settle charges what a call used against its hold, once, and at most what was held (grant ledger). Usage is the attribute
// response.usage; tags an object of strings that is written on the ledger entry, or the zero Value. ErrNotFound: no such hold.
func (h *Host) Settle(hold []byte, usage Value, estimated bool, tags Value) (Receipt, error) {
	in := abi.AppendObject(h.in[:0], 4)
	in = abi.AppendString(abi.AppendKey(in, "hold"), String(hold))
	in = appendValue(abi.AppendKey(in, "usage"), usage)
	in = abi.AppendBool(abi.AppendKey(in, "estimated"), estimated)
	in = appendValue(abi.AppendKey(in, "tags"), tags)
	out, err := h.call(abi.CodeSettle, in)
	if err != nil {
		return Receipt{}, err
	}
	v, _, _ := abi.ReadValue(out)
	return Receipt{Amount: v.Member("amount").Bytes(), Balance: v.Member("balance").Bytes()}, nil
}

// Release gives back what a hold reserved, for a call that was never served (grant ledger). ErrNotFound: no such hold.
func (h *Host) Release(hold []byte) error {
	_, err := h.call(abi.CodeRelease, append(h.in[:0], hold...))
	return err
}

func appendValue(b []byte, v Value) []byte {
	if len(v.Raw()) == 0 {
		return abi.AppendNull(b)
	}
	return append(b, v.Raw()...)
}
