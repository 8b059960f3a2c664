package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest"
)

// start is when the clock of plugintest begins.
const start = 1767323045

const secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// signers are a private key for each kind of key; those for MACs are the secret.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	list := map[string]crypto.Signer{}
	must := func(s crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return s
	}
	list["RSA"] = must(rsa.GenerateKey(rand.Reader, 2048))
	list["P-256"] = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	list["P-384"] = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	list["P-521"] = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	list["Ed25519"] = must(ed, err)
	return list
})

func signerOf(a *algorithm) crypto.Signer {
	if a.curve != "" {
		return signers()[a.curve]
	}
	return signers()[a.kind]
}

func publicPEM(t testing.TB, name string) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signerOf(algorithmOf(name)).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign returns header and payload as a token of an algorithm.
func sign(t testing.TB, name, header, payload string) string {
	t.Helper()
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	a := algorithmOf(name)
	if a.kind == "oct" {
		mac := hmac.New(a.hash.New, []byte(secret))
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	digest := []byte(text)
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(digest)
		digest = h.Sum(nil)
	}
	var out []byte
	var err error
	switch key := signerOf(a).(type) {
	case *ecdsa.PrivateKey:
		r, s, bad := ecdsa.Sign(rand.Reader, key, digest)
		n := (key.Params().BitSize + 7) / 8
		out, err = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), bad
	case ed25519.PrivateKey:
		out = ed25519.Sign(key, digest)
	case *rsa.PrivateKey:
		if a.pss {
			out, err = rsa.SignPSS(rand.Reader, key, a.hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			out, err = rsa.SignPKCS1v15(nil, key, a.hash, digest)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(out)
}

// block is the config's key block for an algorithm, with id k.
func block(t testing.TB, name string) string {
	if algorithmOf(name).kind == "oct" {
		return "key \"k\" {\n algorithm = \"" + name + "\"\n secret = \"" + secret + "\"\n}\n"
	}
	return "key \"k\" {\n algorithm = \"" + name + "\"\n pem = <<PEM\n" + publicPEM(t, name) + "PEM\n}\n"
}

func bearer(token string) *exchange.Exchange {
	return &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "authorization", Value: "Bearer " + token}}}}
}

func claimsText(more string) string {
	return `{"iss":"me","sub":"acct_a","exp":` + strconv.Itoa(start+60) + more + `}`
}

const issuer = "issuer = \"me\"\n"

func stages(config string) []plugintest.Stage {
	return []plugintest.Stage{{Phase: exchange.Authenticate, Config: config}}
}

func refused(detail string) plugintest.Want {
	return plugintest.Want{Respond: 401, Code: "invalid_token", Detail: detail, Check: func(t *testing.T, o *plugintest.Outcome) {
		if field := o.Answer.Header.Get("www-authenticate"); !strings.HasPrefix(field, `Bearer realm="postern", error="invalid_token", error_description="`) {
			t.Errorf("www-authenticate: %s", field)
		}
		if strings.Contains(o.Log+o.Answer.Detail, "eyJ") {
			t.Error("the token shows")
		}
	}}
}

func who(key, account, name string, scopes ...string) plugintest.Want {
	return plugintest.Want{Identity: &exchange.Identity{Account: account, Key: key, Name: name, Scopes: scopes}, Without: []string{"authorization"}}
}

func one(name, config string, x *exchange.Exchange, want plugintest.Want) plugintest.Case {
	return plugintest.Case{Name: name, Stages: stages(config), Exchange: x, Events: []plugintest.Event{{Want: want}}}
}

// Tokens of every algorithm, and what an attacker makes of them.
func TestAlgorithms(t *testing.T) {
	known := who("k", "acct_a", "")
	var cases []plugintest.Case
	for i := range algorithms {
		name := algorithms[i].name
		header := `{"alg":"` + name + `","kid":"k"}`
		good := sign(t, name, header, claimsText(""))
		config := issuer + block(t, name)
		cut := strings.LastIndexByte(good, '.') + 1
		signature, err := base64.RawURLEncoding.DecodeString(good[cut:])
		if err != nil {
			t.Fatal(err)
		}
		changed := append([]byte{}, signature...)
		changed[len(changed)/2] ^= 1
		event := func(token string, want plugintest.Want) plugintest.Event {
			return plugintest.Event{Exchange: bearer(token), Want: want}
		}
		no, forged := refused("not signed"), b64([]byte(claimsText(`,"scope":"admin"`)))
		cases = append(cases, plugintest.Case{Name: name, Stages: stages(config), Events: []plugintest.Event{
			event(good, known),
			event(sign(t, name, `{"alg":"`+name+`"}`, claimsText("")), known),
			event(sign(t, name, `{"alg":"`+name+`","kid":"x"}`, claimsText("")), no),
			event(good[:cut]+b64(changed), no),
			event(good[:cut]+b64(signature[:len(signature)-1]), no),
			event(good[:cut]+b64(append(signature, 0)), no),
			event(good[:cut], no),
			event(good[:strings.IndexByte(good, '.')+1]+forged+good[cut-1:], no),
			event(b64([]byte(`{"alg":"none","kid":"k"}`))+"."+forged+".", no),
			event(good, known), // from memory
		}})
	}
	// The classic: the public key as the secret of a MAC.
	text := b64([]byte(`{"alg":"HS256","kid":"k"}`)) + "." + b64([]byte(claimsText("")))
	mac := hmac.New(sha256.New, []byte(publicPEM(t, "RS256")))
	mac.Write([]byte(text))
	cases = append(cases,
		one("public key as secret", issuer+block(t, "RS256"), bearer(text+"."+b64(mac.Sum(nil))), refused("not signed")),
		one("PKCS #1 v1.5 where PSS is pinned", issuer+block(t, "PS256"), bearer(sign(t, "RS256", `{"alg":"RS256","kid":"k"}`, claimsText(""))), refused("not signed")),
		one("another hash than pinned", issuer+block(t, "RS512"), bearer(sign(t, "RS256", `{"alg":"RS256","kid":"k"}`, claimsText(""))), refused("not signed")),
		one("another algorithm named than used", issuer+block(t, "RS256"), bearer(sign(t, "RS512", `{"alg":"RS256","kid":"k"}`, claimsText(""))), refused("not signed")),
	)
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Limits: limits}, cases)
}

func TestTokens(t *testing.T) {
	known := who("k", "acct_a", "")
	hs := issuer + block(t, "HS256")
	token := func(header, payload string) *exchange.Exchange { return bearer(sign(t, "HS256", header, payload)) }
	with := func(more string) *exchange.Exchange { return token(`{"alg":"HS256","kid":"k"}`, claimsText(more)) }
	claims := func(payload string) *exchange.Exchange { return token(`{"alg":"HS256","kid":"k"}`, payload) }
	header := func(h string) *exchange.Exchange { return token(h, claimsText("")) }
	good := sign(t, "HS256", `{"alg":"HS256","kid":"k"}`, claimsText(""))
	missing := plugintest.Want{Respond: 401, Code: "missing_token", Headers: exchange.Header{{Name: "www-authenticate", Value: `Bearer realm="postern"`}}}
	at := func(n int) string { return strconv.Itoa(start + n) }
	two := bearer(good)
	two.Request.Header = append(two.Request.Header, two.Request.Header[0])
	elsewhere := bearer("nothing")
	elsewhere.Request.Header.Add("x-token", good)
	field := func(value string) *exchange.Exchange {
		return &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "authorization", Value: value}}}}
	}
	who2 := func(name string, scopes ...string) plugintest.Want { return who("k", "acct_a", name, scopes...) }
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Limits: limits}, []plugintest.Case{
		one("known", hs, bearer(good), known),
		one("scheme in any case", hs, field("bEARER   "+good+" "), known),
		one("kept", hs+`keep = true`, bearer(good), plugintest.Want{Identity: known.Identity, Headers: exchange.Header{{Name: "authorization", Value: "Bearer " + good}}}),
		one("from elsewhere", hs+`token = request.headers["x-token"]`, elsewhere, plugintest.Want{Identity: known.Identity, Headers: exchange.Header{{Name: "authorization", Value: "Bearer nothing"}}}),
		one("own scheme", hs+`scheme = "DPoP"`, field("dpop "+good), known),
		one("no token", hs, field(""), missing),
		one("no field", hs, &exchange.Exchange{}, missing),
		one("another scheme", hs, field("Basic "+good), missing),
		one("two", hs, two, refused("more than one")),
		// The token's form.
		one("no parts", hs, bearer("abc"), refused("three parts")),
		one("two parts", hs, bearer("abc.def"), refused("three parts")),
		one("four parts", hs, bearer(good+".x"), refused("three parts")),
		one("five parts", hs, bearer("a.b.c.d.e"), refused("three parts")),
		one("JSON", hs, bearer(`{"payload":"a"}`), refused("three parts")),
		one("long", hs, bearer(good+strings.Repeat("A", maxToken)), refused("too long")),
		one("padding", hs, bearer(good+"="), refused("base64url")),
		one("plain base64", hs, bearer("+/"+good), refused("base64url")),
		one("a line feed within", hs+`token = request.headers["x-token"]`, &exchange.Exchange{Request: exchange.Request{Header: exchange.Header{{Name: "x-token", Value: good[:9] + "\n" + good[9:]}}}}, refused("base64url")),
		one("stray bits", hs, bearer(stray(good)), refused("base64url")),
		one("header is no object", hs, header(`"alg"`), refused("header is malformed")),
		one("header is no JSON", hs, header(`{"alg":"HS256"`), refused("header is malformed")),
		one("header is no UTF-8", hs, header("{\"alg\":\"HS256\",\"x\":\"\xff\"}"), refused("header is malformed")),
		one("header without alg", hs, header(`{"kid":"k"}`), refused("header is malformed")),
		one("alg twice", hs, header(`{"alg":"none","alg":"HS256"}`), refused("header is malformed")),
		one("alg twice, once with an escape", hs, header(`{"\u0061lg":"none","alg":"HS256"}`), refused("header is malformed")),
		one("alg with an escape", hs, header(`{"alg":"\u0048S256"}`), known),
		one("alg in lower case", hs, header(`{"alg":"hs256"}`), refused("not signed")),
		one("alg is a list", hs, header(`{"alg":["HS256"]}`), refused("header is malformed")),
		one("kid is a number", hs, header(`{"alg":"HS256","kid":1}`), refused("header is malformed")),
		one("critical extension", hs, header(`{"alg":"HS256","crit":["exp"],"exp":1}`), refused("critical")),
		one("no critical extension", hs, header(`{"alg":"HS256","crit":[]}`), refused("critical")),
		one("a key in the header", hs, header(`{"alg":"HS256","kid":"x","jwk":{"kty":"oct","k":"AAAA"},"jku":"https://evil.example"}`), refused("not signed")),
		// The type.
		one("type", hs+`types = ["at+jwt"]`, header(`{"alg":"HS256","typ":"at+jwt"}`), known),
		one("type as a media type", hs+`types = ["at+jwt"]`, header(`{"alg":"HS256","typ":"application/AT+JWT"}`), known),
		one("another type", hs+`types = ["at+jwt"]`, header(`{"alg":"HS256","typ":"JWT"}`), refused("another type")),
		one("no type", hs+`types = ["at+jwt"]`, header(`{"alg":"HS256"}`), refused("another type")),
		one("type is no text", hs, header(`{"alg":"HS256","typ":1}`), refused("malformed")),
		// The claims.
		one("claims are no object", hs, claims(`[]`), refused("claims are malformed")),
		one("claims are empty", hs, claims(``), refused("claims are malformed")),
		one("claims nest deeply", hs, claims(`{"a":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}`), refused("claims are malformed")),
		one("a claim twice", hs, with(`,"sub":"acct_b"`), refused("claims are malformed")),
		one("another issuer", strings.Replace(hs, "me", "you", 1), bearer(good), refused("another issuer")),
		one("no issuer", hs, claims(`{"sub":"acct_a","exp":`+at(60)+`}`), refused("another issuer")),
		one("issuer is a list", hs, claims(`{"iss":["me"],"sub":"acct_a","exp":`+at(60)+`}`), refused("another issuer")),
		one("any issuer", strings.Replace(hs, "me", "", 1), bearer(good), known),
		one("an audience nobody expects", hs, with(`,"aud":"x"`), refused("another audience")),
		one("audience", hs+`audience = ["x", "y"]`, with(`,"aud":"y"`), known),
		one("audiences", hs+`audience = ["x", "y"]`, with(`,"aud":["z","y"]`), known),
		one("another audience", hs+`audience = ["x"]`, with(`,"aud":["z","X"]`), refused("another audience")),
		one("no audience", hs+`audience = ["x"]`, bearer(good), refused("another audience")),
		one("audience is an object", hs+`audience = ["x"]`, with(`,"aud":{"x":1}`), refused("another audience")),
		one("just expired", hs, claims(`{"iss":"me","sub":"acct_a","exp":`+at(-30)+`}`), refused("has expired")),
		one("not yet expired", hs, claims(`{"iss":"me","sub":"acct_a","exp":`+at(-29)+`}`), known),
		one("no leeway", hs+`leeway = "0s"`, claims(`{"iss":"me","sub":"acct_a","exp":`+at(0)+`}`), refused("has expired")),
		one("expires in a fraction", hs+`leeway = "0s"`, claims(`{"iss":"me","sub":"acct_a","exp":`+at(0)+`.5}`), known),
		one("never expires", hs, claims(`{"iss":"me","sub":"acct_a"}`), refused("lacks a claim")),
		one("never has to expire", hs+`required = []`, claims(`{"iss":"me","sub":"acct_a"}`), known),
		one("expires as text", hs, claims(`{"iss":"me","sub":"acct_a","exp":"`+at(60)+`"}`), refused("a time is no number")),
		one("expires as null", hs, claims(`{"iss":"me","sub":"acct_a","exp":null}`), refused("a time is no number")),
		one("expires too far away", hs, claims(`{"iss":"me","sub":"acct_a","exp":1e300}`), refused("a time is no number")),
		one("expires below everything", hs, claims(`{"iss":"me","sub":"acct_a","exp":-1e11}`), refused("has expired")),
		one("not valid yet", hs, with(`,"nbf":`+at(31)), refused("not valid yet")),
		one("just valid", hs, with(`,"nbf":`+at(30)), known),
		one("from the future", hs, with(`,"iat":`+at(31)), refused("future")),
		one("young enough", hs+`max_age = "1m"`, with(`,"iat":`+at(-90)), known),
		one("too old", hs+`max_age = "1m"`, with(`,"iat":`+at(-91)), refused("too old")),
		one("of unknown age", hs+`max_age = "1m"`, bearer(good), refused("does not say when")),
		one("required", hs+`required = ["exp", "jti", "/a/b"]`, with(`,"jti":"1","a":{"b":false}`), known),
		one("required is not there", hs+`required = ["exp", "/a/b"]`, with(`,"a":{"c":1}`), refused("lacks a claim")),
		// Who it is.
		one("another account", hs+`account = "tenant"`, with(`,"tenant":"acct_b"`), who("k", "acct_b", "")),
		one("an account deep within", hs+`account = "/org/a~1b/~0id"`, with(`,"org":{"a/b":{"~id":4711}}`), who("k", "4711", "")),
		one("a claim whose name is a URL", hs+`account = "https://example.com/account"`, with(`,"https://example.com/account":"acct_c"`), who("k", "acct_c", "")),
		one("a prefix", hs+`account_prefix = "me/"`, bearer(good), who("k", "me/acct_a", "")),
		one("no account", hs+`account = "tenant"`, bearer(good), refused("which account")),
		one("an empty account", hs+`account_prefix = "me/"`, claims(`{"iss":"me","sub":"","exp":`+at(60)+`}`), refused("which account")),
		one("an account that is null", hs, claims(`{"iss":"me","sub":null,"exp":`+at(60)+`}`), refused("which account")),
		one("an account that is a fraction", hs, claims(`{"iss":"me","sub":1.5,"exp":`+at(60)+`}`), refused("which account")),
		one("an account with a line feed", hs, claims(`{"iss":"me","sub":"a\nb","exp":`+at(60)+`}`), refused("which account")),
		one("a long account", hs, claims(`{"iss":"me","sub":"`+strings.Repeat("a", 257)+`","exp":`+at(60)+`}`), refused("which account")),
		one("name", hs+`name = "email"`, with(`,"email":"j\u00f6rg@example.com"`), who2("jörg@example.com")),
		one("a name that is not there", hs+`name = "email"`, bearer(good), known),
		one("a name that is a list", hs+`name = "email"`, with(`,"email":[]`), refused("name is no text")),
		one("scopes in a text", hs, with(`,"scope":" a  b "`), who2("", "a", "b")),
		one("scopes in a list", hs+`scopes = "/realm/roles"`, with(`,"realm":{"roles":["a","b c"]}`), who2("", "a", "b c")),
		one("no scopes", hs, bearer(good), who2("")),
		one("scopes that are none", hs, with(`,"scope":[1]`), refused("scopes")),
		one("too many scopes", hs, with(`,"scope":"`+strings.Repeat("a ", 2000)+`"`), refused("scopes")),
		one("no scopes are wanted", hs+`scopes = ""`, with(`,"scope":"a"`), who2("")),
		one("attributes", hs+`attributes = { team = "team", admin = "/flags/admin", none = "x" }`, with(`,"team":"red","flags":{"admin":true}`),
			plugintest.Want{Identity: known.Identity, Attributes: map[string]string{"jwt.team": "red", "jwt.admin": "true", "jwt.none": ""}}),
		one("an attribute that is an object", hs+`attributes = { team = "team" }`, with(`,"team":{}`), refused("attribute")),
	})
}

// stray sets a bit of the last character that stands for nothing.
func stray(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	n := len(token) - 1
	return token[:n] + string(alphabet[strings.IndexByte(alphabet, token[n])^1])
}

// What can not be configured says why.
func TestRefusedKeys(t *testing.T) {
	rsaKey := signers()["RSA"].Public().(*rsa.PublicKey)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(rsaKey)}))
	private, err := x509.MarshalPKCS8PrivateKey(signers()["Ed25519"])
	if err != nil {
		t.Fatal(err)
	}
	short, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	p256, err := x509.MarshalPKIXPublicKey(signers()["P-256"].Public())
	if err != nil {
		t.Fatal(err)
	}
	off := append([]byte{}, p256...)
	off[len(off)-1] ^= 1
	point, err := signers()["P-256"].Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwkOf := func(more string) string {
		return `{"kty":"EC","crv":"P-256","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"` + more + `}`
	}
	key := func(algorithm, what, text string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return issuer + "key \"k\" {\n algorithm = \"" + algorithm + "\"\n " + what + " = " + string(quoted) + "\n}\n"
	}
	block := func(name string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}))
	}
	cases := []plugintest.Case{
		one("PKCS #1", key("RS256", "pem", pkcs1), bearer(sign(t, "RS256", `{"alg":"RS256"}`, claimsText(""))), who("k", "acct_a", "")),
		one("JWK", key("ES256", "jwk", jwkOf(`,"use":"sig","key_ops":["sign","verify"],"alg":"ES256","kid":"k"`)), bearer(sign(t, "ES256", `{"alg":"ES256"}`, claimsText(""))), who("k", "acct_a", "")),
		one("secret in base64", issuer+"key \"k\" {\n algorithm = \"HS256\"\n encoding = \"base64\"\n secret = \""+base64.StdEncoding.EncodeToString([]byte(secret))+"\"\n}\n", bearer(sign(t, "HS256", `{"alg":"HS256"}`, claimsText(""))), who("k", "acct_a", "")),
	}
	for name, c := range map[string]struct{ config, refused string }{
		"none":               {issuer, "write at least one key"},
		"nothing in a key":   {issuer + "key \"k\" {\n algorithm = \"RS256\"\n}", "exactly one of"},
		"two in a key":       {issuer + "key \"k\" {\n algorithm = \"HS256\"\n secret = \"" + secret + "\"\n jwk = \"{}\"\n}", "exactly one of"},
		"twice":              {issuer + secretBlock("HS256") + secretBlock("HS256"), "there twice"},
		"private PEM":        {key("EdDSA", "pem", block("PRIVATE KEY", private)), "private"},
		"certificate":        {key("ES256", "pem", block("CERTIFICATE", p256)), "PUBLIC KEY"},
		"no PEM":             {key("ES256", "pem", "hello"), "no PEM block"},
		"two PEM blocks":     {key("ES256", "pem", block("PUBLIC KEY", p256)+block("PUBLIC KEY", p256)), "more than one"},
		"cut DER":            {key("ES256", "pem", block("PUBLIC KEY", p256[:40])), "no public key"},
		"DER and more":       {key("ES256", "pem", block("PUBLIC KEY", append(p256[:len(p256):len(p256)], 0))), "no public key"},
		"not on the curve":   {key("ES256", "pem", block("PUBLIC KEY", off)), "no point"},
		"wrong curve":        {key("ES384", "pem", block("PUBLIC KEY", p256)), "not for ES384"},
		"wrong kind":         {key("RS256", "pem", block("PUBLIC KEY", p256)), "not for RS256"},
		"short RSA":          {key("RS256", "pem", block("PUBLIC KEY", short)), "2048"},
		"short secret":       {key("HS512", "secret", secret[:63]), "too short"},
		"secret for RSA":     {key("RS256", "secret", secret), "not for RS256"},
		"JWK of another alg": {key("ES256", "jwk", jwkOf(`,"alg":"ES512"`)), "another algorithm"},
		"JWK to encrypt":     {key("ES256", "jwk", jwkOf(`,"use":"enc"`)), "use is not sig"},
		"JWK to sign only":   {key("ES256", "jwk", jwkOf(`,"key_ops":["sign"]`)), "key_ops"},
		"private JWK":        {key("ES256", "jwk", jwkOf(`,"d":"AAAA"`)), "private"},
		"another kid":        {key("ES256", "jwk", jwkOf(`,"kid":"x"`)), "another kid"},
		"JWK is no JSON":     {key("ES256", "jwk", "{"), "no JSON object"},
		"a kind not known":   {key("EdDSA", "jwk", `{"kty":"OKP","crv":"Ed448","x":"AA"}`), "not known"},
		"leeway":             {issuer + "leeway = \"11m\"\n" + secretBlock("HS256"), "leeway"},
		"account":            {issuer + "account = \"\"\n" + secretBlock("HS256"), "account"},
		"attributes":         {issuer + "attributes = { A = \"a\" }\n" + secretBlock("HS256"), "attributes"},
		"secret set":         {issuer + "jwks {\n url = \"https://x.example/\"\n algorithms = []\n}", "algorithms is empty"},
		"refresh":            {issuer + "jwks {\n url = \"https://x.example/\"\n algorithms = [\"RS256\"]\n refresh = \"1s\"\n}", "refresh is at least"},
		"retry":              {issuer + "jwks {\n url = \"https://x.example/\"\n algorithms = [\"RS256\"]\n retry = \"2h\"\n}", "retry is at"},
	} {
		cases = append(cases, plugintest.Case{Name: "refused: " + name, Stages: stages(c.config), Refused: c.refused})
	}
	plugintest.Run(t, plugintest.Config{New: func() postern.Plugin { return new(plugin) }, Limits: limits}, cases)
}

func secretBlock(name string) string {
	return "key \"k\" {\n algorithm = \"" + name + "\"\n secret = \"" + secret + "\"\n}\n"
}

// frame writes an event with a field authorization and no other token.
func frame(field string) []byte {
	slots := [][]byte{append(binary.LittleEndian.AppendUint32(nil, uint32(len(field))), field...), abi.AppendString(nil, "")}
	b := make([]byte, abi.FrameHeader+abi.SlotSize*(abi.SlotFirst+len(slots)))
	b[4] = byte(abi.EventRequest)
	binary.LittleEndian.PutUint32(b[12:], uint32(abi.SlotFirst+len(slots)))
	binary.LittleEndian.PutUint64(b[16:], start*1e9)
	for i, s := range slots {
		at := abi.FrameHeader + abi.SlotSize*(abi.SlotFirst+i)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(s)))
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// instance is a plugin that knows one secret.
func instance(t testing.TB) *postern.Instance {
	t.Helper()
	k, err := newMAC(algorithmOf("HS256"), []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	k.id = "k"
	p := &plugin{stages: []stage{{scheme: "Bearer", keys: []*key{k}, issuer: "me", required: []string{"exp"}, account: "sub", scopes: "scope", leeway: 30}}}
	return postern.NewInstance(p, nil)
}

// A token that comes again costs no memory.
func TestNoAllocations(t *testing.T) {
	i := instance(t)
	b := frame("Bearer " + sign(t, "HS256", `{"alg":"HS256","kid":"k","typ":"JWT"}`, claimsText(`,"scope":"a b"`)))
	run := func() {
		if action, ops := i.On(copy(i.Frame(), b)); action != abi.ActionContinue || len(ops) == 0 {
			t.Fatalf("action %d, %q", action, ops)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations for one event", n)
	}
}

// Whatever is sent, nobody gets in without a signature.
func FuzzToken(f *testing.F) {
	good := sign(f, "HS256", `{"alg":"HS256","kid":"k"}`, claimsText(""))
	f.Add(good[:strings.LastIndexByte(good, '.')+1] + strings.Repeat("A", 43))
	f.Add(b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(claimsText(""))) + ".")
	f.Add(b64([]byte(`{"alg":"HS256","crit":["b64"],"b64":false}`)) + "..")
	f.Add("..")
	i := instance(f)
	f.Fuzz(func(t *testing.T, token string) {
		if len(token) > 32<<10 {
			return
		}
		if action, _ := i.On(copy(i.Frame(), frame("Bearer "+token))); action != abi.ActionRespond {
			t.Fatalf("action %d for %q", action, token)
		}
	})
}

// An object reads as encoding/json reads it, where it reads at all, and its claims are checked without a panic.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(claimsText(`,"aud":["a"],"scope":"a b","x":{"y":[1,2,{}]}`)))
	f.Add([]byte(`{"sub":"\ud800","exp":1e5,"a\u0000":null}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	var c claims
	st := &stage{account: "/x/y", scopes: "scope", name: "sub", audience: []string{"a"}, attributes: []attribute{{"self.a", "/a"}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var o object
		if o.read(b) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(b, &m); err != nil || len(m) != len(o.members) {
				t.Fatalf("%q: %v, %d members and %d", b, err, len(m), len(o.members))
			}
			for name, raw := range m {
				v := o.get(name)
				if string(v) != string(raw) {
					t.Fatalf("%q: %s is %q, want %q", b, name, v, raw)
				}
				var s string
				if json.Unmarshal(raw, &s) == nil && v.isText() && string(v.text(nil)) != s {
					t.Fatalf("%q: %s says %q, want %q", b, name, v.text(nil), s)
				}
			}
		}
		c.check(st, b, start*1e9)
	})
}
