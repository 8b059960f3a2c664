package factor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Passkey is one as it is kept (WebAuthn Level 3).
type Passkey struct {
	ID         string              `json:"id"` // "pass_" and 16 letters and digits
	Name       string              `json:"name"`
	Created    time.Time           `json:"created"`
	Used       time.Time           `json:"used,omitzero"` // zero: never
	Credential webauthn.Credential `json:"credential"`
}

// User is whom a passkey belongs to.
type User struct {
	ID    string // random; the user handle
	Email string
	Name  string // may be empty
	Set   *Set
}

// WebAuthnID implements webauthn.User.
func (u User) WebAuthnID() []byte { return []byte(u.ID) }

// WebAuthnName implements webauthn.User.
func (u User) WebAuthnName() string { return u.Email }

// WebAuthnDisplayName implements webauthn.User.
func (u User) WebAuthnDisplayName() string {
	if u.Name != "" {
		return u.Name
	}
	return u.Email
}

// WebAuthnCredentials implements webauthn.User.
func (u User) WebAuthnCredentials() []webauthn.Credential {
	list := make([]webauthn.Credential, len(u.Set.Passkeys))
	for i, k := range u.Set.Passkeys {
		list[i] = k.Credential
	}
	return list
}

// Party is who passkeys are made for: a host and an origin.
type Party struct{ w *webauthn.WebAuthn }

// Challenge is what a ceremony remembers between its two halves.
type Challenge = webauthn.SessionData

// NewParty returns the party of a public URL, or nil where there can be none: an IP address has no passkeys.
func NewParty(public *url.URL, service string) *Party {
	host := public.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	w, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: service, RPOrigins: []string{public.Scheme + "://" + public.Host},
		AttestationPreference: protocol.PreferNoAttestation, // which device somebody has is their business
	})
	if err != nil {
		return nil
	}
	return &Party{w: w}
}

// BeginCreate returns what a page gives to navigator.credentials.create, as JSON. What the user has is not made again.
func (p *Party) BeginCreate(u User) (options []byte, c Challenge, err error) {
	creation, data, err := p.w.BeginRegistration(u,
		webauthn.WithExclusions(webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors()),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred}))
	if err != nil {
		return nil, c, fmt.Errorf("begin a passkey: %w", err)
	}
	options, err = json.Marshal(creation)
	return options, *data, err
}

// Create adds the passkey to the user's set that the browser answered with, as JSON.
func (p *Party) Create(u User, c Challenge, id, name string, now time.Time, response []byte) (*Passkey, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return nil, ErrWrong
	}
	credential, err := p.w.CreateCredential(u, c, parsed)
	if err != nil {
		return nil, ErrWrong
	}
	if slices.ContainsFunc(u.Set.Passkeys, func(k Passkey) bool { return string(k.Credential.ID) == string(credential.ID) }) {
		return nil, ErrWrong
	}
	credential.Attestation = webauthn.CredentialAttestation{} // it says which device it is
	u.Set.Passkeys = append(u.Set.Passkeys, Passkey{ID: id, Name: name, Created: now, Credential: *credential})
	return &u.Set.Passkeys[len(u.Set.Passkeys)-1], nil
}

// BeginGet returns what a page gives to navigator.credentials.get, as JSON. Without a user (nil) any passkey of this party
// will do. alone demands that the device asks who holds it, as it must where the passkey is all that is asked for.
func (p *Party) BeginGet(u *User, alone bool) (options []byte, c Challenge, err error) {
	wanted := protocol.VerificationPreferred
	if alone {
		wanted = protocol.VerificationRequired
	}
	var assertion *protocol.CredentialAssertion
	var data *webauthn.SessionData
	if u == nil {
		assertion, data, err = p.w.BeginDiscoverableLogin(webauthn.WithUserVerification(wanted))
	} else {
		assertion, data, err = p.w.BeginLogin(*u, webauthn.WithUserVerification(wanted))
	}
	if err != nil {
		return nil, c, fmt.Errorf("begin a passkey's use: %w", err)
	}
	options, err = json.Marshal(assertion)
	return options, *data, err
}

// Handle is the user handle in what a browser answered, before anything of it was checked.
func Handle(response []byte) (string, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return "", ErrWrong
	}
	return string(parsed.Response.UserHandle), nil
}

// Check checks what a passkey signed, as JSON, and notes its counter in the user's set. A counter that went back tells of a
// copy (section 6.1.1), which is refused. alone is as it must have been at BeginGet.
func (p *Party) Check(u User, c Challenge, alone bool, now time.Time, response []byte) error {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil || alone && c.UserVerification != protocol.VerificationRequired {
		return ErrWrong
	}
	var credential *webauthn.Credential
	if len(c.UserID) == 0 {
		credential, err = p.w.ValidateDiscoverableLogin(func([]byte, []byte) (webauthn.User, error) { return u, nil }, c, parsed)
	} else {
		credential, err = p.w.ValidateLogin(u, c, parsed)
	}
	if err != nil || credential.Authenticator.CloneWarning {
		return ErrWrong
	}
	for i := range u.Set.Passkeys {
		if k := &u.Set.Passkeys[i]; string(k.Credential.ID) == string(credential.ID) {
			k.Credential, k.Used = *credential, now
			return nil
		}
	}
	return ErrWrong
}

// Public is what is known of a passkey, without its key.
type Public struct {
	ID      string    `json:"id"` // "pass_" and 16 letters and digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // zero: never
}

// Public is what the passkey's person sees of it.
func (k *Passkey) Public() Public {
	return Public{ID: k.ID, Name: k.Name, Created: k.Created, Used: k.Used}
}
