package person

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// addTOTP gives somebody an authenticator app.
func (w *world) addTOTP(s Session) (secret string, recovery []string) {
	w.t.Helper()
	e, err := w.BeginTOTP(w.t.Context(), s)
	w.must(err)
	recovery, err = w.ConfirmTOTP(w.t.Context(), s, e.Ceremony, code(w.t, e.Secret, 0))
	w.must(err)
	return e.Secret, recovery
}

// code is what an authenticator app shows, some steps from now.
func code(t *testing.T, secret string, steps int) string {
	t.Helper()
	text, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAuthenticatorApp(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		e, err := w.BeginTOTP(ctx, ann.Session)
		w.must(err)
		if !strings.HasPrefix(e.URL, "otpauth://totp/Edge:ann@example.org?") || len(e.PNG) == 0 {
			t.Errorf("%+v", e)
		}
		_, err = w.ConfirmTOTP(ctx, ann.Session, e.Ceremony, "000000")
		w.is(err, ErrCode, "a wrong code at the start")
		_, err = w.ConfirmTOTP(ctx, ann.Session, e.Ceremony, code(t, e.Secret, 0))
		w.is(err, ErrToken, "an enrolment that is over")
		bob := w.join("bob@example.org")
		e, err = w.BeginTOTP(ctx, bob.Session)
		w.must(err)
		_, err = w.ConfirmTOTP(ctx, ann.Session, e.Ceremony, code(t, e.Secret, 0))
		w.is(err, ErrToken, "somebody else's enrolment")
		w.letters()
		secret, recovery := w.addTOTP(ann.Session)
		if len(recovery) != 10 || len(recovery[0]) != 19 {
			t.Errorf("recovery codes %v", recovery)
		}
		w.one("ann@example.org", ForgotPath)

		pending := func() string {
			t.Helper()
			in, err := w.SignIn(ctx, home, "ann@example.org", good)
			w.must(err)
			if in.Token != "" || !slices.Equal(in.Factors, []string{"totp", "recovery"}) {
				t.Fatalf("a password alone: %+v", in)
			}
			return in.Pending
		}
		p := pending()
		_, err = w.Session(ctx, p)
		w.is(err, ErrSession, "what waits for a factor, as a session")
		_, err = w.Prove(ctx, home, p, Proof{Code: code(t, secret, 0)})
		w.is(err, ErrCode, "the code that the app was added by")
		time.Sleep(30 * time.Second)
		now := code(t, secret, 0)
		in, err := w.Prove(ctx, home, p, Proof{Code: now[:3] + " " + now[3:]})
		w.must(err)
		if !slices.Equal(in.Session.Factors, []string{"password", "totp"}) {
			t.Errorf("%+v", in.Session)
		}
		_, err = w.Prove(ctx, home, p, Proof{Code: code(t, secret, 1)})
		w.is(err, ErrToken, "a sign-in that is complete")
		p = pending()
		_, err = w.Prove(ctx, home, p, Proof{Code: now})
		w.is(err, ErrCode, "the same code again")
		_, err = w.Prove(ctx, home, p, Proof{Code: code(t, secret, -1)})
		w.is(err, ErrCode, "one from before it")
		_, err = w.Prove(ctx, home, p, Proof{Code: code(t, secret, 2)})
		w.is(err, ErrCode, "one from a minute ahead")
		_, err = w.Prove(ctx, home, p, Proof{Code: code(t, secret, 1)})
		w.must(err) // a clock that is ahead

		p = pending()
		_, err = w.Prove(ctx, home, p, Proof{Recovery: strings.ToUpper(recovery[3])})
		w.must(err)
		p = pending()
		_, err = w.Prove(ctx, home, p, Proof{Recovery: recovery[3]})
		w.is(err, ErrCode, "a recovery code again")
		if who, err := w.Get(ctx, ann.Session.Person); err != nil || who.Recovery != 9 || !who.TOTP {
			t.Errorf("%+v, %v", who, err)
		}
		codes, err := w.NewRecoveryCodes(ctx, in.Session)
		w.must(err)
		_, err = w.Prove(ctx, home, p, Proof{Recovery: recovery[4]})
		w.is(err, ErrCode, "a recovery code that was replaced")
		_, err = w.Prove(ctx, home, p, Proof{Recovery: codes[0]})
		w.must(err)
		w.must(w.RemoveTOTP(ctx, in.Session))
		w.is(w.RemoveTOTP(ctx, in.Session), ErrNotFound, "again")
		if in, err = w.SignIn(ctx, home, "ann@example.org", good); err != nil || in.Token == "" {
			t.Errorf("without a second factor: %+v, %v", in, err)
		}
	})
}

// TestGuessedCodes: five wrong codes end a sign-in, the person is told, and a password that fifty follow is gone. Whoever has
// no password gets nobody that far.
func TestGuessedCodes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		secret, _ := w.addTOTP(ann.Session)
		w.letters()
		told, n := 0, 0
		for i := 0; i < 100; i++ {
			time.Sleep(time.Minute)
			in, err := w.SignIn(ctx, from(i), "ann@example.org", good)
			if err != nil {
				w.is(err, ErrCredentials, "in the end")
				break
			}
			for try := 0; try < 5; try++ {
				time.Sleep(time.Minute)
				bad := "000000"
				if bad == code(t, secret, 0) || bad == code(t, secret, 1) || bad == code(t, secret, -1) {
					bad = "000001"
				}
				_, err = w.Prove(ctx, from(i), in.Pending, Proof{Code: bad})
				w.is(err, ErrCode, "a wrong code")
				n++
			}
			_, err = w.Prove(ctx, from(i), in.Pending, Proof{Code: code(t, secret, 1)})
			w.is(err, ErrToken, "the right one, after five")
			told += len(w.letters())
		}
		if n != maxMisses || told != maxMisses/5 {
			t.Errorf("%d codes, told %d times", n, told)
		}
		if p, err := w.Get(ctx, ann.Session.Person); err != nil || p.Password {
			t.Errorf("%+v, %v", p, err)
		}
		w.must(w.RequestReset(ctx, home, "ann@example.org", "en"))
		w.must(w.Reset(ctx, w.one("ann@example.org", ResetPath).token, better))
		in, err := w.SignIn(ctx, home, "ann@example.org", better)
		w.must(err)
		_, err = w.Prove(ctx, home, in.Pending, Proof{Code: code(t, secret, 0)})
		w.must(err)
	})
}

// key is a passkey's device (WebAuthn Level 3, sections 6.1 and 6.5), as far as a browser lets it be seen.
type key struct {
	t       *testing.T
	private *ecdsa.PrivateKey
	id      []byte
	user    string
	count   uint32
	origin  string
	flags   byte // user present 1, verified 4
}

func newKey(t *testing.T) *key {
	t.Helper()
	k := &key{t: t, id: make([]byte, 16), origin: "https://edge.example.com", flags: 5}
	rand.Read(k.id)
	var err error
	if k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return k
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// data is the authenticator data; what is more than its head follows.
func (k *key) data(flags byte, more ...byte) []byte {
	host := sha256.Sum256([]byte("edge.example.com"))
	out := append(host[:], k.flags|flags)
	return append(binary.BigEndian.AppendUint32(out, k.count), more...)
}

// client is the client data of a ceremony, from the options that a page was given.
func (k *key) client(kind string, options []byte) []byte {
	var o struct {
		PublicKey struct {
			Challenge string `json:"challenge"`
			User      struct {
				ID string `json:"id"`
			} `json:"user"`
		} `json:"publicKey"`
	}
	if err := json.Unmarshal(options, &o); err != nil {
		k.t.Fatal(err)
	}
	if kind == "webauthn.create" {
		id, err := base64.RawURLEncoding.DecodeString(o.PublicKey.User.ID)
		if err != nil {
			k.t.Fatal(err)
		}
		k.user = string(id)
	}
	text, err := json.Marshal(map[string]any{"type": kind, "challenge": o.PublicKey.Challenge, "origin": k.origin})
	if err != nil {
		k.t.Fatal(err)
	}
	return text
}

// create answers navigator.credentials.create.
func (k *key) create(options []byte) []byte {
	client := k.client("webauthn.create", options)
	public, err := k.private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		k.t.Fatal(err)
	}
	more := append(make([]byte, 16), 0, byte(len(k.id)))
	more = append(more, k.id...)
	more = append(more, 0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32) // COSE: EC2, ES256, P-256, x
	more = append(more, public[1:33]...)
	more = append(more, 0x22, 0x58, 32)
	more = append(more, public[33:]...)
	data := k.data(0x40, more...)
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"), byte(len(data)))
	return k.answer(map[string]string{"clientDataJSON": base64url(client), "attestationObject": base64url(append(object, data...))})
}

// get answers navigator.credentials.get.
func (k *key) get(options []byte) []byte {
	k.count++
	client := k.client("webauthn.get", options)
	sum := sha256.Sum256(client)
	data := k.data(0)
	digest := sha256.Sum256(append(slices.Clone(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		k.t.Fatal(err)
	}
	return k.answer(map[string]string{"clientDataJSON": base64url(client), "authenticatorData": base64url(data), "signature": base64url(signature), "userHandle": base64url([]byte(k.user))})
}

func (k *key) answer(response map[string]string) []byte {
	text, err := json.Marshal(map[string]any{"id": base64url(k.id), "rawId": base64url(k.id), "type": "public-key", "response": response})
	if err != nil {
		k.t.Fatal(err)
	}
	return text
}

// addPasskey gives somebody a passkey.
func (w *world) addPasskey(s Session, k *key) (Passkey, []string) {
	w.t.Helper()
	options, ceremony, err := w.BeginPasskey(w.t.Context(), s)
	w.must(err)
	made, recovery, err := w.AddPasskey(w.t.Context(), s, ceremony, "laptop", k.create(options))
	w.must(err)
	return made, recovery
}

// assertion is a proof by a passkey, for a sign-in that waits, a session, or neither.
func (w *world) assertion(k *key, pending, text string) Proof {
	w.t.Helper()
	options, ceremony, err := w.PasskeyOptions(w.t.Context(), pending, text)
	w.must(err)
	return Proof{Ceremony: ceremony, Assertion: k.get(options)}
}

func TestPasskeys(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		if !w.HasPasskeys() {
			t.Fatal("no passkeys")
		}
		ann, bob := w.join("ann@example.org"), w.join("bob@example.org")
		w.letters()
		k := newKey(t)
		options, ceremony, err := w.BeginPasskey(ctx, ann.Session)
		w.must(err)
		_, _, err = w.AddPasskey(ctx, bob.Session, ceremony, "laptop", k.create(options))
		w.is(err, ErrToken, "somebody else's ceremony")
		options, ceremony, err = w.BeginPasskey(ctx, ann.Session)
		w.must(err)
		k.origin = "https://edge.example.net"
		_, _, err = w.AddPasskey(ctx, ann.Session, ceremony, "laptop", k.create(options))
		w.is(err, ErrCode, "one made on another site")
		k.origin = "https://edge.example.com"
		made, recovery := w.addPasskey(ann.Session, k)
		if made.Name != "laptop" || len(recovery) != 10 {
			t.Errorf("%+v, %v", made, recovery)
		}
		w.one("ann@example.org", ForgotPath)
		options, ceremony, err = w.BeginPasskey(ctx, ann.Session)
		w.must(err)
		_, _, err = w.AddPasskey(ctx, ann.Session, ceremony, "again", k.create(options))
		w.is(err, ErrCode, "the same one again")

		// As second factor.
		in, err := w.SignIn(ctx, home, "ann@example.org", good)
		w.must(err)
		if !slices.Equal(in.Factors, []string{"passkey", "recovery"}) {
			t.Errorf("%+v", in)
		}
		proof := w.assertion(k, in.Pending, "")
		got, err := w.Prove(ctx, home, in.Pending, proof)
		w.must(err)
		in, err = w.SignIn(ctx, home, "ann@example.org", good)
		w.must(err)
		_, err = w.Prove(ctx, home, in.Pending, proof)
		w.is(err, ErrToken, "an assertion again")
		other := newKey(t)
		other.id, other.user = k.id, k.user
		_, err = w.Prove(ctx, home, in.Pending, w.assertion(other, in.Pending, ""))
		w.is(err, ErrCode, "a key that signs in its place")
		k.count = 0
		_, err = w.Prove(ctx, home, in.Pending, w.assertion(k, in.Pending, ""))
		w.is(err, ErrCode, "a copy, whose counter went back")
		k.count = 10
		k.origin = "https://edge.example.com.evil.example"
		_, err = w.Prove(ctx, home, in.Pending, w.assertion(k, in.Pending, ""))
		w.is(err, ErrCode, "on another site")
		k.origin = "https://edge.example.com"

		// Alone: the device must have asked who holds it.
		k.flags = 1
		_, err = w.PasskeySignIn(ctx, home, w.assertion(k, "", ""))
		w.is(err, ErrCode, "alone, without its holder's proof")
		_, err = w.Prove(ctx, home, in.Pending, w.assertion(k, in.Pending, "")) // beside a password it need not
		w.must(err)
		k.flags = 5
		for range 20 { // right ones are not counted as guesses
			in, err = w.PasskeySignIn(ctx, home, w.assertion(k, "", ""))
			w.must(err)
		}
		if in.Session.Person != ann.Session.Person || !slices.Equal(in.Session.Factors, []string{"passkey"}) {
			t.Errorf("%+v", in.Session)
		}
		k.user = bob.Session.Person
		_, err = w.PasskeySignIn(ctx, home, w.assertion(k, "", ""))
		w.is(err, ErrCode, "as somebody else")
		k.user = "pers_nobody"
		_, err = w.PasskeySignIn(ctx, home, w.assertion(k, "", ""))
		w.is(err, ErrCode, "as nobody")
		k.user = ann.Session.Person
		_, err = w.PasskeySignIn(ctx, home, Proof{Assertion: []byte("{")})
		w.is(err, ErrCode, "what is no assertion")
		text, s, err := w.Reauthenticate(ctx, home, in.Token, w.assertion(k, "", in.Token))
		w.must(err)
		if _, err := w.Session(ctx, text); err != nil || s.ID != in.Session.ID {
			t.Errorf("%+v, %v", s, err)
		}
		_, _, err = w.PasskeyOptions(ctx, "", bob.Token)
		w.is(err, ErrNotFound, "who has no passkey")

		p, err := w.Get(ctx, ann.Session.Person)
		if err != nil || len(p.Passkeys) != 1 || p.Passkeys[0].Used.IsZero() {
			t.Errorf("%+v, %v", p, err)
		}
		w.is(w.RemovePasskey(ctx, bob.Session, made.ID), ErrNotFound, "somebody else's")
		w.must(w.RemovePasskey(ctx, got.Session, made.ID))
		_, err = w.PasskeySignIn(ctx, home, w.assertion(k, "", ""))
		w.is(err, ErrCode, "one that was removed")
	})
}

// TestStrangersPushOutNobody: a flood of begun sign-ins by passkey takes no ceremony away from who is known.
func TestStrangersPushOutNobody(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		ann := w.join("ann@example.org")
		e, err := w.BeginTOTP(ctx, ann.Session)
		w.must(err)
		for range 10_001 {
			w.strangers.Start("get", "", nil)
		}
		_, err = w.ConfirmTOTP(ctx, ann.Session, e.Ceremony, code(t, e.Secret, 0))
		w.must(err)
	})
}
