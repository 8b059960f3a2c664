package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"hash"
	"math/big"
	"strings"

	postern "github.com/postern-gateway/postern/sdk/go"
)

// algorithm is one way to sign: a key is for exactly one of them (RFC 8725 section 3.1).
type algorithm struct {
	name  string
	kind  string // kty: RSA, EC, OKP or oct
	curve string // crv
	hash  crypto.Hash
	pss   bool
}

// algorithms are those known here. There is no "none".
var algorithms = [...]algorithm{
	{"RS256", "RSA", "", crypto.SHA256, false}, {"RS384", "RSA", "", crypto.SHA384, false}, {"RS512", "RSA", "", crypto.SHA512, false},
	{"PS256", "RSA", "", crypto.SHA256, true}, {"PS384", "RSA", "", crypto.SHA384, true}, {"PS512", "RSA", "", crypto.SHA512, true},
	{"ES256", "EC", "P-256", crypto.SHA256, false}, {"ES384", "EC", "P-384", crypto.SHA384, false}, {"ES512", "EC", "P-521", crypto.SHA512, false},
	{"EdDSA", "OKP", "Ed25519", 0, false}, {"Ed25519", "OKP", "Ed25519", 0, false},
	{"HS256", "oct", "", crypto.SHA256, false}, {"HS384", "oct", "", crypto.SHA384, false}, {"HS512", "oct", "", crypto.SHA512, false},
}

func algorithmOf(name string) *algorithm {
	for i := range algorithms {
		if algorithms[i].name == name {
			return &algorithms[i]
		}
	}
	return nil
}

// Bounds of RSA keys, in bits (RFC 7518 section 3.3 for the lower).
const (
	minRSA = 2048
	maxRSA = 8192
)

// key verifies signatures of one algorithm.
type key struct {
	id  string
	alg *algorithm

	rsa *rsa.PublicKey
	ec  *ecdsa.PublicKey
	ed  ed25519.PublicKey
	mac hash.Hash

	digest hash.Hash
	print  [sha256.Size]byte // tells this key apart from every other
	sum    [sha512.Size]byte
}

// ready ends the making of a key: material is what it is made of.
func (k *key) ready(material ...[]byte) *key {
	switch k.alg.hash {
	case crypto.SHA256:
		k.digest = sha256.New()
	case crypto.SHA384:
		k.digest = sha512.New384()
	case crypto.SHA512:
		k.digest = sha512.New()
	}
	h := sha256.New()
	for _, m := range append([][]byte{[]byte(k.alg.name)}, material...) {
		_, _ = h.Write([]byte{byte(len(m) >> 8), byte(len(m))})
		_, _ = h.Write(m)
	}
	h.Sum(k.print[:0])
	return k
}

// verify reports whether signature is this key's over signed.
func (k *key) verify(signed, signature []byte) bool {
	switch {
	case k.mac != nil:
		k.mac.Reset()
		_, _ = k.mac.Write(signed)
		return hmac.Equal(k.mac.Sum(k.sum[:0]), signature)
	case k.ed != nil:
		return ed25519.Verify(k.ed, signed, signature)
	}
	k.digest.Reset()
	_, _ = k.digest.Write(signed)
	sum := k.digest.Sum(k.sum[:0])
	switch {
	case k.ec != nil:
		n := (k.ec.Params().BitSize + 7) / 8
		if len(signature) != 2*n {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])
		return ecdsa.Verify(k.ec, sum, r, s)
	case k.alg.pss:
		return rsa.VerifyPSS(k.rsa, k.alg.hash, sum, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return rsa.VerifyPKCS1v15(k.rsa, k.alg.hash, sum, signature) == nil
}

func newRSA(alg *algorithm, n, e []byte) (*key, error) {
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	if len(e) > 4 {
		return nil, errors.New("the exponent is too large")
	}
	for _, c := range e {
		public.E = public.E<<8 | int(c)
	}
	switch bits := public.N.BitLen(); {
	case alg.kind != "RSA":
		return nil, errors.New("an RSA key is not for " + alg.name)
	case bits < minRSA || bits > maxRSA:
		return nil, errors.New("an RSA key has 2048 to 8192 bits")
	case public.E < 3 || public.E > 1<<31-1 || public.E%2 == 0 || public.N.Bit(0) == 0:
		return nil, errors.New("that is no RSA key")
	case weak(public.N):
		return nil, errors.New("the key was made by a generator that is broken (ROCA): its private key can be computed")
	}
	return (&key{alg: alg, rsa: public}).ready(n, e), nil
}

// weak reports whether a modulus is of the form that gives its factors away (CVE-2017-15361): modulo every small prime it is
// a power of 65537.
func weak(n *big.Int) bool {
	rest := new(big.Int)
	for _, p := range [...]int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		have, power, found := rest.Mod(n, big.NewInt(p)).Int64(), int64(1), false
		for range p {
			found = found || power == have
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

func curveOf(name string) elliptic.Curve {
	switch name {
	case "P-256":
		return elliptic.P256()
	case "P-384":
		return elliptic.P384()
	case "P-521":
		return elliptic.P521()
	}
	return nil
}

func newEC(alg *algorithm, curve string, point []byte) (*key, error) {
	c := curveOf(curve)
	if c == nil || alg.kind != "EC" || alg.curve != curve {
		return nil, errors.New("a key on the curve " + curve + " is not for " + alg.name)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(c, point)
	if err != nil {
		return nil, errors.New("the key is no point of " + curve)
	}
	return (&key{alg: alg, ec: public}).ready(point), nil
}

// warm verifies something with a curve. The first time builds a table, which takes longer than an event has.
func warm(alg *algorithm) {
	if alg.kind != "EC" {
		return
	}
	params := curveOf(alg.curve).Params()
	n := (params.BitSize + 7) / 8
	point := make([]byte, 1+2*n)
	point[0] = 4
	params.Gx.FillBytes(point[1 : 1+n])
	params.Gy.FillBytes(point[1+n:])
	if k, err := newEC(alg, alg.curve, point); err == nil {
		one := make([]byte, n)
		one[n-1] = 1
		k.verify(one, append(one, one...))
	}
}

func newEd(alg *algorithm, public []byte) (*key, error) {
	switch {
	case alg.kind != "OKP":
		return nil, errors.New("an Ed25519 key is not for " + alg.name)
	case len(public) != ed25519.PublicKeySize:
		return nil, errors.New("that is no Ed25519 key")
	}
	return (&key{alg: alg, ed: append(ed25519.PublicKey{}, public...)}).ready(public), nil
}

func newMAC(alg *algorithm, secret []byte) (*key, error) {
	switch {
	case alg.kind != "oct":
		return nil, errors.New("a secret is not for " + alg.name)
	case len(secret) < alg.hash.Size(): // RFC 7518 section 3.2
		return nil, errors.New("the secret is too short: " + alg.name + " needs as many octets as its hash has")
	}
	k := &key{alg: alg}
	switch alg.hash {
	case crypto.SHA256:
		k.mac = hmac.New(sha256.New, secret)
	case crypto.SHA384:
		k.mac = hmac.New(sha512.New384, secret)
	default:
		k.mac = hmac.New(sha512.New, secret)
	}
	return k.ready(secret), nil
}

// fromPEM reads a public key: SubjectPublicKeyInfo (RFC 5280), or an RSA key of PKCS #1.
func fromPEM(alg *algorithm, text string) (*key, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("pem holds no PEM block")
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("pem holds a private key: write the public one, and keep the other away from here")
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("pem holds more than one block")
	case block.Type == "RSA PUBLIC KEY":
		return pkcs1(alg, block.Bytes)
	case block.Type != "PUBLIC KEY":
		return nil, errors.New(`pem holds a block "` + block.Type + `"; write one of type PUBLIC KEY`)
	}
	return spki(alg, block.Bytes)
}

// fromJWK reads a JSON Web Key (RFC 7517). alg nil: the key itself has to say what it is for, or else only one of choices
// can be meant. A symmetric key is taken only where alg is given: a key set that everybody can read holds none.
func fromJWK(alg *algorithm, choices []*algorithm, o *object) (*key, error) {
	fixed := alg != nil
	if v := o.get("alg"); v != nil {
		named := algorithmOf(string(v.text(nil)))
		if named == nil || alg != nil && named != alg {
			return nil, errors.New("the key says that it is for another algorithm")
		}
		alg = named
	}
	if v := o.get("use"); v != nil && !v.is("sig") {
		return nil, errors.New("the key's use is not sig")
	}
	if ops := o.get("key_ops"); ops != nil {
		verifies := false
		for v := range ops.each {
			verifies = verifies || v.is("verify")
		}
		if !verifies {
			return nil, errors.New("the key's key_ops has no verify")
		}
	}
	kind, curve := o.get("kty"), string(o.get("crv").text(nil))
	if alg == nil {
		for _, c := range choices {
			if kind.is(c.kind) && (c.curve == "" || c.curve == curve) {
				if alg != nil {
					return nil, errors.New("the key does not say which algorithm it is for")
				}
				alg = c
			}
		}
		if alg == nil {
			return nil, errors.New("the key is for none of the algorithms")
		}
	}
	if o.get("d") != nil {
		return nil, errors.New("the key is a private one")
	}
	octets := func(name string) []byte {
		b, ok := decode(nil, o.get(name).text(nil))
		if !ok {
			return nil
		}
		return b
	}
	switch {
	case kind.is("RSA"):
		return newRSA(alg, octets("n"), octets("e"))
	case kind.is("EC"):
		x, y := octets("x"), octets("y")
		if len(x) != len(y) {
			return nil, errors.New("the key is no point of " + curve)
		}
		return newEC(alg, curve, append(append([]byte{4}, x...), y...))
	case kind.is("OKP") && curve == "Ed25519":
		return newEd(alg, octets("x"))
	case kind.is("oct") && fixed:
		return newMAC(alg, octets("k"))
	}
	return nil, errors.New("the key is of a kind that is not known here")
}

// fromConfig reads a key block.
func fromConfig(v postern.Value) (*key, error) {
	alg, id := algorithmOf(v.Member("algorithm").Text()), v.Member("id").Text()
	pemText, jwk, secret := v.Member("pem").Text(), v.Member("jwk").Text(), v.Member("secret").Text()
	given := 0
	for _, s := range [...]string{pemText, jwk, secret} {
		if s != "" {
			given++
		}
	}
	var k *key
	var err error
	switch {
	case given != 1:
		err = errors.New("write exactly one of pem, jwk and secret")
	case pemText != "":
		k, err = fromPEM(alg, pemText)
	case jwk != "":
		var o object
		if !o.read([]byte(jwk)) {
			err = errors.New("jwk is no JSON object")
		} else if kid := o.get("kid"); kid != nil && !kid.is(id) {
			err = errors.New("jwk has another kid")
		} else {
			k, err = fromJWK(alg, nil, &o)
		}
	default:
		b := []byte(secret)
		if v.Member("encoding").Text() == "base64" {
			if b, err = base64.StdEncoding.Strict().DecodeString(secret); err != nil {
				err = errors.New("secret is not base64") // the error would show a part of it
				break
			}
		}
		k, err = newMAC(alg, b)
	}
	if err != nil {
		return nil, errors.New(`key "` + id + `": ` + err.Error())
	}
	k.id = id
	return k, nil
}
