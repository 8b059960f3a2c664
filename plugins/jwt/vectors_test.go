package main

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
)

// vectors are a file of Wycheproof's. Keys are JSON Web Keys, or key sets.
type vectors struct {
	TestGroups []struct {
		Comment string
		Public  json.RawMessage
		Private json.RawMessage // of symmetric keys the only one
		Tests   []struct {
			TcID    int
			Comment string
			JWS     json.RawMessage // a text; some are objects, which is another serialization
			Result  string
		}
	}
}

func readVectors(t *testing.T, name string) *vectors {
	t.Helper()
	b, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.TestGroups) == 0 {
		t.Fatal("there are no vectors")
	}
	return v
}

// odd are the vectors of signatures that say what can not be meant. For each the test makes sure of it.
var odd = map[int]string{
	346: "algorithm", 350: "algorithm", // RFC 7520's keys name no algorithm; the vectors added one, and not the token's
	347: "algorithm", 351: "algorithm", // ES521, which does not exist
	367: "sound", 370: "sound", // invalid, for a padding that is not there: the text is the valid token of vectors 372 and 373
	372: "not base64url", 373: "not base64url", // valid, in spite of a question mark within
}

// vectorKey is what an operator who is handed a key of the vectors writes in a key block: the JSON Web Key, and the
// algorithm that it names.
func vectorKey(jwk []byte) (*key, error) {
	var o object
	if !o.read(jwk) {
		return nil, errDER
	}
	alg := algorithmOf(string(o.get("alg").text(nil)))
	for i := 0; alg == nil && i < len(algorithms); i++ { // it names none that there is: one that it is fit for
		if a := &algorithms[i]; o.get("alg") == nil && o.get("kty").is(a.kind) && (a.curve == "" || o.get("crv").is(a.curve)) {
			alg = a
		}
	}
	if alg == nil {
		return nil, errDER
	}
	k, err := fromJWK(alg, nil, &o)
	if err == nil {
		k.id = string(o.get("kid").text(nil))
	}
	return k, err
}

// jws is a vector's token: a text, or what is not one.
func jws(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// Every signature of Wycheproof's is judged as it says there.
func TestWycheproofSignatures(t *testing.T) {
	t.Parallel()
	n := 0
	for _, g := range readVectors(t, "json_web_signature_test.json").TestGroups {
		jwk := g.Public
		if jwk == nil {
			jwk = g.Private
		}
		for _, test := range g.Tests {
			n++
			want, text := test.Result == "valid", jws(test.JWS)
			key := jwk
			switch odd[test.TcID] {
			case "algorithm":
				if key = algorithmPattern.ReplaceAll(jwk, []byte(`"alg":"`+headerOf(t, text)+`"`)); string(key) == string(jwk) {
					t.Errorf("%d is not odd", test.TcID)
				}
			case "sound":
				want = true
			case "not base64url":
				if want = false; !strings.Contains(text, "?") {
					t.Errorf("%d is not odd", test.TcID)
				}
			}
			k, err := vectorKey(key)
			var tok token
			why := tok.read([]byte(text))
			if accepted := err == nil && why == "" && tok.candidate(k) && k.verify(tok.signed, tok.signature); accepted != want {
				t.Errorf("%d (%s, %s) is %s, and it was accepted: %t (key: %v, token: %s)", test.TcID, g.Comment, test.Comment, test.Result, accepted, err, why)
			}
		}
	}
	if n < 400 {
		t.Errorf("only %d vectors", n)
	}
}

var algorithmPattern = regexp.MustCompile(`"alg": ?"[A-Z0-9]+"`)

// headerOf is the algorithm that a token names.
func headerOf(t *testing.T, text string) string {
	t.Helper()
	first, _, _ := strings.Cut(text, ".")
	b, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Alg string }
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	return h.Alg
}

// Every key of Wycheproof's that is not fit to verify with is refused, by itself or beside the others of its set.
func TestWycheproofKeys(t *testing.T) {
	t.Parallel()
	n := 0
	for _, g := range readVectors(t, "json_web_key_test.json").TestGroups {
		jwks := g.Public
		if jwks == nil {
			jwks = g.Private
		}
		var set struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(jwks, &set); err != nil || len(set.Keys) == 0 {
			t.Fatalf("%s: %v", g.Comment, err)
		}
		var keys []*key
		var last error
		for _, jwk := range set.Keys {
			k, err := vectorKey(jwk)
			if err != nil || slices.ContainsFunc(keys, func(o *key) bool { return o.id == k.id && o.alg == k.alg }) {
				keys, last = nil, err // Configure refuses it
				break
			}
			keys = append(keys, k)
		}
		for _, test := range g.Tests {
			n++
			if g.Comment == "jws_mixedSymmetryKeyset" {
				continue // a secret beside a public key is a danger only where keys are for any algorithm
			}
			var tok token
			accepted := false
			if tok.read([]byte(jws(test.JWS))) == "" {
				for _, k := range keys {
					accepted = accepted || tok.candidate(k) && k.verify(tok.signed, tok.signature)
				}
			}
			if accepted != (test.Result == "valid") {
				t.Errorf("%d (%s, %s) is %s, and it was accepted: %t (%v)", test.TcID, g.Comment, test.Comment, test.Result, accepted, last)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d vectors", n)
	}
}
