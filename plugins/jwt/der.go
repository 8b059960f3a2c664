package main

import (
	"bytes"
	"errors"
)

// Tags of DER (X.690) that public keys have.
const (
	tagInteger  = 0x02
	tagBits     = 0x03
	tagObject   = 0x06
	tagSequence = 0x30
)

var errDER = errors.New("pem holds no public key of a kind that is known here")

// der takes one element of a tag off b; nil when there is none. encoding/asn1 would do, and would double the module.
func der(b []byte, tag byte) (content, rest []byte) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil
	}
	n, b := int(b[1]), b[2:]
	if n >= 0x80 {
		octets := n - 0x80
		if octets < 1 || octets > 2 || len(b) < octets {
			return nil, nil
		}
		n = 0
		for _, c := range b[:octets] {
			n = n<<8 | int(c)
		}
		b = b[octets:]
		if n < 0x80 || octets == 2 && n < 0x100 {
			return nil, nil // not the shortest form
		}
	}
	if n > len(b) {
		return nil, nil
	}
	return b[:n:n], b[n:]
}

// pkcs1 reads an RSAPublicKey of RFC 8017.
func pkcs1(alg *algorithm, b []byte) (*key, error) {
	seq, rest := der(b, tagSequence)
	n, tail := der(seq, tagInteger)
	e, end := der(tail, tagInteger)
	if len(rest)+len(end) > 0 || len(n) == 0 || len(e) == 0 || n[0]&0x80 != 0 || e[0]&0x80 != 0 {
		return nil, errDER
	}
	return newRSA(alg, n, e)
}

// spki reads a SubjectPublicKeyInfo.
func spki(alg *algorithm, b []byte) (*key, error) {
	seq, rest := der(b, tagSequence)
	id, tail := der(seq, tagSequence)
	bits, end := der(tail, tagBits)
	kind, params := der(id, tagObject)
	if len(rest)+len(end) > 0 || len(bits) < 2 || bits[0] != 0 {
		return nil, errDER
	}
	public := bits[1:]
	switch string(kind) {
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01": // rsaEncryption
		if bytes.Equal(params, []byte{5, 0}) {
			return pkcs1(alg, public)
		}
	case "\x2b\x65\x70": // id-Ed25519
		if len(params) == 0 {
			return newEd(alg, public)
		}
	case "\x2a\x86\x48\xce\x3d\x02\x01": // id-ecPublicKey
		curve, tail := der(params, tagObject)
		if len(tail) > 0 {
			break
		}
		switch string(curve) {
		case "\x2a\x86\x48\xce\x3d\x03\x01\x07":
			return newEC(alg, "P-256", public)
		case "\x2b\x81\x04\x00\x22":
			return newEC(alg, "P-384", public)
		case "\x2b\x81\x04\x00\x23":
			return newEC(alg, "P-521", public)
		}
	}
	return nil, errDER
}
