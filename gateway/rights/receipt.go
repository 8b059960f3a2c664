package rights

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// ErrReceipt says that a text is no receipt that the key signed.
var ErrReceipt = errors.New("not a receipt signed with this key")

// Receipt says what became of a request. It is signed as a JSON Web Signature (RFC 7515) with Ed25519 (RFC 8037).
type Receipt struct {
	Issuer  string    `json:"iss"`
	Request string    `json:"sub"`
	Issued  int64     `json:"iat"` // Unix seconds
	Kind    Kind      `json:"kind"`
	State   State     `json:"state"`
	Made    time.Time `json:"made"`
	Changed time.Time `json:"changed"`
	Due     time.Time `json:"due,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	Digest  string    `json:"sha256,omitempty"` // of an export's archive
}

// Key is a public key as a JSON Web Key (RFC 8037 section 2).
type Key struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	ID    string `json:"kid"`
	Use   string `json:"use"`
}

// loadKey reads the key that signs, and makes it the first time.
func (r *Register) loadKey(ctx context.Context) error {
	sealed, err := r.c.Store.Get(ctx, []byte(signingKey))
	if errors.Is(err, state.ErrNotFound) {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		if sealed, err = r.c.Vault.Seal(ctx, "gateway", signingKey, private.Seed()); err != nil {
			return err
		}
		b := new(state.Batch)
		b.Put([]byte(signingKey), sealed)
		r.signer = private
		return r.c.Store.Commit(ctx, b)
	}
	if err != nil {
		return err
	}
	seed, err := r.c.Vault.Open(ctx, "gateway", signingKey, sealed)
	if err == nil && len(seed) != ed25519.SeedSize {
		err = errors.New("the key of receipts is damaged")
	}
	if err == nil {
		r.signer = ed25519.NewKeyFromSeed(seed)
	}
	return err
}

// Key is the key that receipts are verified with.
func (r *Register) Key() Key {
	public, _ := r.signer.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return Key{Type: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public), ID: base64.RawURLEncoding.EncodeToString(sum[:8]), Use: "sig"}
}

// Receipt signs how a request stands now.
func (r *Register) Receipt(q Request) (string, error) {
	head, err := json.Marshal(map[string]string{"alg": "EdDSA", "kid": r.Key().ID, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(Receipt{Issuer: r.c.Service, Request: q.ID, Issued: r.now().Unix(), Kind: q.Kind, State: q.State, Made: q.Made, Changed: q.Changed,
		Due: q.Due, Reason: q.Reason, Digest: q.Digest})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(r.signer, []byte(text))), nil
}

// Verify reads a receipt that was signed with a key, or gives ErrReceipt.
func Verify(key Key, text string) (c Receipt, err error) {
	signed, signature, ok := cutLast(text)
	_, body, ok2 := strings.Cut(signed, ".")
	public, err1 := base64.RawURLEncoding.Strict().DecodeString(key.X)
	sig, err2 := base64.RawURLEncoding.Strict().DecodeString(signature)
	claims, err3 := base64.RawURLEncoding.Strict().DecodeString(body)
	if !ok || !ok2 || errors.Join(err1, err2, err3) != nil || len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, []byte(signed), sig) {
		return c, ErrReceipt
	}
	d := json.NewDecoder(bytes.NewReader(claims))
	d.DisallowUnknownFields()
	if d.Decode(&c) != nil {
		return Receipt{}, ErrReceipt
	}
	return c, nil
}

func cutLast(text string) (before, after string, ok bool) {
	i := strings.LastIndexByte(text, '.')
	if i < 0 {
		return "", "", false
	}
	return text[:i], text[i+1:], true
}
