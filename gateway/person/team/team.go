// Package team is who takes part in which account, and as what: its main type is Teams. The table of what a role may do is
// Role.Allows. Rights come from what is stored about a member and from nothing that a request says.
package team

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/person/token"
	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of Teams, besides mail's and the store's.
var (
	ErrNotFound  = errors.New("no such person, account, member, invitation or factor")
	ErrForbidden = errors.New("this role may not do that")
	ErrLastOwner = errors.New("an account needs an owner")
	ErrInvalid   = errors.New("not valid")
	ErrTooMany   = errors.New("too many of them")
	ErrSignup    = errors.New("nobody can sign up this way")
)

// Bounds.
const (
	MaxName        = 80   // characters of an account's name
	MaxMembers     = 1000 // of one account, invitations included
	MaxMemberships = 100  // of one person
)

// InvitationPath is the page that invitations lead to, below the public URL, with the parameter "token".
const InvitationPath = "/invitation"

// The records.
const (
	memberPrefix = "person/m/"  // + account + / + person
	partPrefix   = "person/mp/" // + person + / + account; the role
	invitePrefix = "person/i/"  // + account + / + invitation id
	guestPrefix  = "person/ip/" // + HMAC of an address + / + invitation id; the account
)

// Accounts is where accounts are made and named.
type Accounts interface {
	Create(ctx context.Context, name string) (id string, err error)
	Name(ctx context.Context, id string) (string, error) // of an account that there is
	Close(ctx context.Context, id string) error          // for good; once more, or one that is not there, is no error
}

// People is who takes part. Errors for who is not there are ErrNotFound.
type People interface {
	Contact(ctx context.Context, person string) (Contact, error)
	Registered(ctx context.Context, address string) (bool, error)
}

// Contact is how a person is called and written to.
type Contact struct{ Name, Email, Language string }

// Config configures Teams. All of it is required but Tell.
type Config struct {
	Mint       *token.Mint // with the store
	Vault      mail.Vault
	Mail       *mail.Office
	Accounts   Accounts
	People     People
	Change     sync.Locker                                                         // held by whoever writes, from the check to the store
	Open       bool                                                                // people may make accounts
	Invitation time.Duration                                                       // how long one holds
	Tell       func(ctx context.Context, actor, action, subject string, err error) // for the audit log
}

// Teams is the members of accounts. It is safe for concurrent use.
type Teams struct {
	c     Config
	store state.Store
	now   func() time.Time
}

// New returns Teams.
func New(c Config) *Teams {
	if c.Tell == nil {
		c.Tell = func(context.Context, string, string, string, error) {}
	}
	return &Teams{c: c, store: c.Mint.Store, now: c.Mint.Now}
}

// commit writes a batch.
func (t *Teams) commit(ctx context.Context, b *state.Batch) error {
	if err := t.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("store members: %w", err)
	}
	return nil
}

// CheckName refuses what is no name of an account or a person. Whether there may be none is the caller's matter.
func CheckName(name string) error {
	if utf8.RuneCountInString(name) > MaxName || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: a name has at most %d characters, no control characters and no space at its ends", ErrInvalid, MaxName)
	}
	return nil
}

// Role is what a person is in an account.
type Role string

// The roles.
const (
	Owner   Role = "owner"   // everything, other owners and the account's end included
	Admin   Role = "admin"   // keys, money and members, but not owners
	Member  Role = "member"  // keys, and what they used
	Auditor Role = "auditor" // sees everything, changes nothing
)

// Action is something that can be done in an account.
type Action string

// The actions.
const (
	SeeUsage      Action = "see_usage"      // calls, sums, receipts, creations' list
	SeeBilling    Action = "see_billing"    // balance, credits, entries
	SeeMembers    Action = "see_members"    // who takes part
	SeeAudit      Action = "see_audit"      // the account's part of the audit log
	ManageKeys    Action = "manage_keys"    // API keys
	ManageContent Action = "manage_content" // creations: open, delete
	Pay           Action = "pay"            // top up, caps
	ManageMembers Action = "manage_members" // invite, change and remove members, but not owners
	ManageOwners  Action = "manage_owners"  // make and unmake owners
	EndAccount    Action = "end_account"    // rename, close, delete
)

// Allows reports whether a role may do something. This is the one table of it.
func (r Role) Allows(a Action) bool {
	var who []Role
	switch a {
	case SeeUsage, SeeMembers:
		who = []Role{Owner, Admin, Member, Auditor}
	case SeeBilling, SeeAudit:
		who = []Role{Owner, Admin, Auditor}
	case ManageKeys, ManageContent:
		who = []Role{Owner, Admin, Member}
	case Pay, ManageMembers:
		who = []Role{Owner, Admin}
	case ManageOwners, EndAccount:
		who = []Role{Owner}
	}
	return slices.Contains(who, r)
}

// Membership is a person's part in an account.
type Membership struct {
	Account string    `json:"account"`
	Person  string    `json:"person"`
	Role    Role      `json:"role"`
	Since   time.Time `json:"since"`
	Name    string    `json:"-"` // of the person; in Members only
	Email   string    `json:"-"` // of the person; in Members only
}

// Invitation is one that was not answered yet.
type Invitation struct {
	ID      string    `json:"id"` // "inv_" and 16 letters and digits
	Account string    `json:"account"`
	Role    Role      `json:"role"`
	By      string    `json:"by"` // a person's id
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Email   string    `json:"-"` // whom it was sent to
	Team    string    `json:"-"` // the account's name; of Invited only
	Known   bool      `json:"-"` // that address is a person's already; of Invited only
}

// invitationRecord is an invitation as it is stored; the address is sealed under the account's key.
type invitationRecord struct {
	Invitation
	Token  string `json:"token"` // the key of its token
	Sealed []byte `json:"sealed"`
}

// Part is a person's membership, or ErrNotFound.
func (t *Teams) Part(ctx context.Context, account, person string) (Membership, error) {
	text, err := t.store.Get(ctx, []byte(memberPrefix+account+"/"+person))
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrTooLarge) {
		return Membership{}, ErrNotFound
	}
	var m Membership
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return Membership{}, fmt.Errorf("read member: %w", err)
	}
	if m.Account != account || m.Person != person {
		return Membership{}, ErrNotFound
	}
	return m, nil
}

// May refuses what a person may not do in an account. To who has no part in it, it is ErrNotFound: the account could be
// there or not.
func (t *Teams) May(ctx context.Context, person, account string, a Action) (Membership, error) {
	m, err := t.Part(ctx, account, person)
	if err != nil {
		return Membership{}, err
	}
	if !m.Role.Allows(a) {
		return Membership{}, ErrForbidden
	}
	return m, nil
}

// Memberships returns a person's parts in accounts, the oldest first.
func (t *Teams) Memberships(ctx context.Context, person string) ([]Membership, error) {
	var list []Membership
	prefix := partPrefix + person + "/"
	for e, err := range t.store.Scan(ctx, []byte(prefix), nil) {
		if err != nil {
			return nil, fmt.Errorf("read memberships: %w", err)
		}
		m, err := t.Part(ctx, string(e.Key[len(prefix):]), person)
		if errors.Is(err, ErrNotFound) {
			continue // left a moment ago
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b Membership) int { return a.Since.Compare(b.Since) })
	return list, nil
}

// members reads an account's members without their names.
func (t *Teams) members(ctx context.Context, account string) ([]Membership, error) {
	var list []Membership
	for e, err := range t.store.Scan(ctx, []byte(memberPrefix+account+"/"), nil) {
		if err != nil {
			return nil, fmt.Errorf("read members: %w", err)
		}
		var m Membership
		if err := json.Unmarshal(e.Value, &m); err != nil {
			return nil, fmt.Errorf("record %s is damaged", e.Key)
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b Membership) int { return a.Since.Compare(b.Since) })
	return list, nil
}

// Members returns who takes part in an account, the oldest first.
func (t *Teams) Members(ctx context.Context, person string, account string) ([]Membership, error) {
	if _, err := t.May(ctx, person, account, SeeMembers); err != nil {
		return nil, err
	}
	list, err := t.members(ctx, account)
	if err != nil {
		return nil, err
	}
	for i := range list {
		p, err := t.c.People.Contact(ctx, list[i].Person)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list[i].Name, list[i].Email = p.Name, p.Email
	}
	return list, nil
}

// Join puts a new membership into a batch, whose caller holds Change.
func (t *Teams) Join(b *state.Batch, person, account string, role Role) (Membership, error) {
	m := Membership{Account: account, Person: person, Role: role, Since: t.now().UTC().Truncate(time.Second)}
	return m, t.put(b, m)
}

// put writes a membership into a batch.
func (t *Teams) put(b *state.Batch, m Membership) error {
	b.Put([]byte(partPrefix+m.Person+"/"+m.Account), []byte(m.Role))
	return token.Record(b, memberPrefix+m.Account+"/"+m.Person, m, 0)
}

// Quit takes a membership out with a batch, whose caller holds Change and has seen to it that an owner is left.
func (t *Teams) Quit(b *state.Batch, m Membership) {
	b.Delete([]byte(partPrefix + m.Person + "/" + m.Account))
	b.Delete([]byte(memberPrefix + m.Account + "/" + m.Person))
}

// CreateAccount makes another account, whose owner is whose s is.
func (t *Teams) CreateAccount(ctx context.Context, person string, name string) (account string, err error) {
	defer func() { t.c.Tell(ctx, person, "account.create", account, err) }()
	if err := CheckName(name); err != nil || name == "" {
		return "", errors.Join(ErrInvalid, err)
	}
	if !t.c.Open {
		return "", ErrSignup
	}
	t.c.Change.Lock()
	defer t.c.Change.Unlock()
	if _, err := t.c.People.Contact(ctx, person); err != nil {
		return "", err
	}
	list, err := t.Memberships(ctx, person)
	if err != nil {
		return "", err
	}
	if len(list) >= MaxMemberships {
		return "", fmt.Errorf("%w: a person takes part in at most %d accounts", ErrTooMany, MaxMemberships)
	}
	made, err := t.c.Accounts.Create(ctx, name)
	if err != nil {
		return "", fmt.Errorf("make an account: %w", err)
	}
	b := new(state.Batch)
	if _, err := t.Join(b, person, made, Owner); err != nil {
		return "", err
	}
	return made, t.commit(ctx, b)
}

// Adopt makes a person the owner of an account that has no members, for operators: accounts made by the command line
// belong to nobody.
func (t *Teams) Adopt(ctx context.Context, account, person string) (err error) {
	defer func() { t.c.Tell(ctx, "", "account.adopt", account, err) }()
	t.c.Change.Lock()
	defer t.c.Change.Unlock()
	if _, err := t.c.People.Contact(ctx, person); err != nil {
		return err
	}
	if _, err := t.c.Accounts.Name(ctx, account); err != nil {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	list, err := t.members(ctx, account)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%w: the account has members", ErrInvalid)
	}
	b := new(state.Batch)
	if _, err := t.Join(b, person, account, Owner); err != nil {
		return err
	}
	return t.commit(ctx, b)
}

// grants refuses to give or take a role that is not the giver's to give.
func grants(by Membership, roles ...Role) error {
	for _, r := range roles {
		switch r {
		case Owner:
			if !by.Role.Allows(ManageOwners) {
				return ErrForbidden
			}
		case Admin, Member, Auditor:
		default:
			return fmt.Errorf("%w: there is no such role", ErrInvalid)
		}
	}
	return nil
}

// SetRole changes a member's role. The last owner stays one.
func (t *Teams) SetRole(ctx context.Context, person string, account, member string, role Role) (err error) {
	defer func() { t.c.Tell(ctx, person, "account.role", member, err) }()
	if !role.Allows(SeeUsage) { // which all of them may
		return fmt.Errorf("%w: there is no such role", ErrInvalid)
	}
	return t.alter(ctx, person, account, member, role)
}

// RemoveMember takes a member out of an account. The last owner stays.
func (t *Teams) RemoveMember(ctx context.Context, person string, account, member string) (err error) {
	defer func() { t.c.Tell(ctx, person, "account.member_remove", member, err) }()
	return t.alter(ctx, person, account, member, "")
}

// Leave takes whose s is out of an account. The last owner can not.
func (t *Teams) Leave(ctx context.Context, person string, account string) (err error) {
	defer func() { t.c.Tell(ctx, person, "account.leave", account, err) }()
	return t.alter(ctx, person, account, person, "")
}

// alter gives a member another role, or none.
func (t *Teams) alter(ctx context.Context, person, account, member string, role Role) error {
	t.c.Change.Lock()
	defer t.c.Change.Unlock()
	by, err := t.Part(ctx, account, person)
	if err != nil {
		return err
	}
	leaving := person == member && role == "" // anybody may
	if !leaving && !by.Role.Allows(ManageMembers) {
		return ErrForbidden
	}
	m, err := t.Part(ctx, account, member)
	if err != nil {
		return err
	}
	if !leaving {
		if err := grants(by, m.Role); err != nil {
			return err
		}
	}
	if m.Role == Owner && role != Owner {
		if err := t.another(ctx, account, member); err != nil {
			return err
		}
	}
	b := new(state.Batch)
	if role == "" {
		t.Quit(b, m)
		return t.commit(ctx, b)
	}
	if err := grants(by, role); err != nil {
		return err
	}
	m.Role = role
	if err := t.put(b, m); err != nil {
		return err
	}
	return t.commit(ctx, b)
}

// another refuses to let an account lose its last owner.
func (t *Teams) another(ctx context.Context, account, person string) error {
	list, err := t.members(ctx, account)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(m Membership) bool { return m.Role == Owner && m.Person != person }) {
		return ErrLastOwner
	}
	return nil
}

// Invite sends an invitation to take part in an account. The answer is the same whether the address is a person's or not.
func (t *Teams) Invite(ctx context.Context, person string, account, email string, role Role) (inv Invitation, err error) {
	defer func() { t.c.Tell(ctx, person, "account.invite", inv.ID, err) }()
	by, err := t.May(ctx, person, account, ManageMembers)
	if err != nil {
		return Invitation{}, err
	}
	if err := grants(by, role); err != nil {
		return Invitation{}, err
	}
	address, err := mail.Address(email)
	if err != nil {
		return Invitation{}, errors.Join(ErrInvalid, err)
	}
	team, err := t.c.Accounts.Name(ctx, account)
	if err != nil {
		return Invitation{}, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	t.c.Change.Lock()
	defer t.c.Change.Unlock()
	p, err := t.c.People.Contact(ctx, person)
	if err != nil {
		return Invitation{}, err
	}
	list, err := t.invitations(ctx, account)
	if err != nil {
		return Invitation{}, err
	}
	there, err := t.members(ctx, account)
	if err != nil {
		return Invitation{}, err
	}
	if len(list)+len(there) >= MaxMembers {
		return Invitation{}, fmt.Errorf("%w: an account has at most %d members, those invited included", ErrTooMany, MaxMembers)
	}
	b := new(state.Batch)
	for _, old := range list { // another invitation takes the place of the one before
		if old.Email == address {
			t.withdraw(b, old)
		}
	}
	now, ttl := t.now().UTC().Truncate(time.Second), t.c.Invitation
	r := invitationRecord{Invitation: Invitation{ID: token.ID("inv_"), Account: account, Role: role, By: person, Made: now, Expires: now.Add(ttl), Email: address}}
	text, err := t.c.Mint.Make(b, token.Invitation, "", ttl, token.Letter{Address: address, Account: account, Invitation: r.ID})
	if err != nil {
		return Invitation{}, err
	}
	r.Token = t.c.Mint.Key(text)
	if r.Sealed, err = t.c.Vault.Seal(ctx, account, "invitation:"+r.ID, []byte(address)); err != nil {
		return Invitation{}, fmt.Errorf("seal invitation: %w", err)
	}
	if err := token.Record(b, invitePrefix+account+"/"+r.ID, r, ttl); err != nil {
		return Invitation{}, err
	}
	b.PutTTL([]byte(t.guest(r)), []byte(account), ttl)
	from := p.Name
	if from == "" {
		from = p.Email
	}
	m := mail.Message{Kind: "invitation", To: address, Owner: person, Language: p.Language, Path: InvitationPath, Token: text, Expires: r.Expires, Asked: true,
		Values: map[string]string{"Hours": mail.Hours(ttl), "Team": team, "By": from}}
	// Unlike other mails this one is asked for by somebody who is known, and may be told that it was one too many.
	if err := t.c.Mail.Post(ctx, b, m); errors.Is(err, mail.ErrThrottled) {
		return Invitation{}, fmt.Errorf("%w: this address was sent enough for now", ErrTooMany)
	} else if err != nil {
		return Invitation{}, err
	}
	return r.Invitation, nil
}

// invitations reads an account's open invitations.
func (t *Teams) invitations(ctx context.Context, account string) ([]invitationRecord, error) {
	var list []invitationRecord
	for e, err := range t.store.Scan(ctx, []byte(invitePrefix+account+"/"), nil) {
		if err != nil {
			return nil, fmt.Errorf("read invitations: %w", err)
		}
		var r invitationRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return nil, fmt.Errorf("record %s is damaged", e.Key)
		}
		if !t.now().Before(r.Expires) {
			continue
		}
		plain, err := t.c.Vault.Open(ctx, account, "invitation:"+r.ID, r.Sealed)
		if err != nil {
			return nil, fmt.Errorf("open invitation: %w", err)
		}
		r.Email = string(plain)
		list = append(list, r)
	}
	slices.SortStableFunc(list, func(a, b invitationRecord) int { return a.Made.Compare(b.Made) })
	return list, nil
}

// withdraw takes an invitation and its link out with a batch.
func (t *Teams) withdraw(b *state.Batch, r invitationRecord) {
	b.Delete([]byte(invitePrefix + r.Account + "/" + r.ID))
	b.Delete([]byte(r.Token))
	b.Delete([]byte(t.guest(r)))
}

// guest is where an invitation, whose address is known, is found by it.
func (t *Teams) guest(r invitationRecord) string {
	return guestPrefix + t.c.Mint.Digest("guest", r.Email) + "/" + r.ID
}

// Uninvite takes the open invitations to an address out with a batch, whose caller holds Change.
func (t *Teams) Uninvite(ctx context.Context, b *state.Batch, address string) error {
	prefix := guestPrefix + t.c.Mint.Digest("guest", address) + "/"
	for e, err := range t.store.Scan(ctx, []byte(prefix), nil) {
		if err != nil {
			return fmt.Errorf("read invitations: %w", err)
		}
		key := invitePrefix + string(e.Value) + "/" + string(e.Key[len(prefix):])
		value, err := t.store.Get(ctx, []byte(key))
		if errors.Is(err, state.ErrNotFound) {
			continue // over a moment ago
		}
		var r invitationRecord
		if err == nil {
			err = json.Unmarshal(value, &r)
		}
		if err != nil {
			return fmt.Errorf("read invitation: %w", err)
		}
		r.Email = address
		t.withdraw(b, r)
	}
	return nil
}

// Sent returns the open invitations that a person sent to an account.
func (t *Teams) Sent(ctx context.Context, account, by string) ([]Invitation, error) {
	all, err := t.invitations(ctx, account)
	if err != nil {
		return nil, err
	}
	var list []Invitation
	for _, r := range all {
		if r.By == by {
			list = append(list, r.Invitation)
		}
	}
	return list, nil
}

// Invitations returns an account's open invitations, the oldest first.
func (t *Teams) Invitations(ctx context.Context, person string, account string) ([]Invitation, error) {
	if _, err := t.May(ctx, person, account, SeeMembers); err != nil {
		return nil, err
	}
	list, err := t.invitations(ctx, account)
	if err != nil {
		return nil, err
	}
	open := make([]Invitation, len(list))
	for i, r := range list {
		open[i] = r.Invitation
	}
	return open, nil
}

// Withdraw takes an invitation back; its link leads nowhere then.
func (t *Teams) Withdraw(ctx context.Context, person string, account, id string) (err error) {
	defer func() { t.c.Tell(ctx, person, "account.invite_withdraw", id, err) }()
	by, err := t.May(ctx, person, account, ManageMembers)
	if err != nil {
		return err
	}
	t.c.Change.Lock()
	defer t.c.Change.Unlock()
	list, err := t.invitations(ctx, account)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.ID != id {
			continue
		}
		if err := grants(by, r.Role); err != nil {
			return err
		}
		b := new(state.Batch)
		t.withdraw(b, r)
		return t.commit(ctx, b)
	}
	return ErrNotFound
}

// invitation reads the invitation of a link. What holds is what the account's record says, not what the link knows.
func (t *Teams) invitation(ctx context.Context, text string) (*invitationRecord, error) {
	_, l, err := t.c.Mint.Read(ctx, token.Invitation, text)
	if err != nil {
		return nil, err
	}
	value, err := t.store.Get(ctx, []byte(invitePrefix+l.Account+"/"+l.Invitation))
	if errors.Is(err, state.ErrNotFound) {
		return nil, token.ErrOver // withdrawn
	}
	r := new(invitationRecord)
	if err == nil {
		err = json.Unmarshal(value, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read invitation: %w", err)
	}
	r.Email = l.Address
	// Who invited may have lost the right to since.
	by, err := t.Part(ctx, r.Account, r.By)
	if errors.Is(err, ErrNotFound) || err == nil && (!by.Role.Allows(ManageMembers) || grants(by, r.Role) != nil) {
		return nil, token.ErrOver
	}
	return r, err
}

// Invited tells what a link invites to. Known says whether its address is a person's: then they sign in and Accept,
// otherwise they Join. Who has the link reads the address's mail.
func (t *Teams) Invited(ctx context.Context, text string) (Invitation, error) {
	r, err := t.invitation(ctx, text)
	if err != nil {
		return Invitation{}, err
	}
	if r.Team, err = t.c.Accounts.Name(ctx, r.Account); err != nil {
		return Invitation{}, token.ErrOver // the account is gone
	}
	if r.Known, err = t.c.People.Registered(ctx, r.Email); err != nil {
		return Invitation{}, err
	}
	return r.Invitation, nil
}

// Take reads the invitation of a link for whoever accepts it, and takes it out with a batch. The caller holds Change, and
// sees to it that it is for the right address.
func (t *Teams) Take(ctx context.Context, b *state.Batch, text string) (Invitation, error) {
	r, err := t.invitation(ctx, text)
	if err != nil {
		return Invitation{}, err
	}
	t.withdraw(b, *r)
	return r.Invitation, nil
}

// Sole returns the parts that a person has, the accounts among them that nobody else takes part in, and those that others
// would be left in without an owner.
func (t *Teams) Sole(ctx context.Context, person string) (parts []Membership, sole, blocked []string, err error) {
	if parts, err = t.Memberships(ctx, person); err != nil {
		return nil, nil, nil, err
	}
	for _, m := range parts {
		list, err := t.members(ctx, m.Account)
		if err != nil {
			return nil, nil, nil, err
		}
		if len(list) == 1 {
			sole = append(sole, m.Account)
		} else if m.Role == Owner {
			if err := t.another(ctx, m.Account, person); errors.Is(err, ErrLastOwner) {
				blocked = append(blocked, m.Account)
			} else if err != nil {
				return nil, nil, nil, err
			}
		}
	}
	return parts, sole, blocked, nil
}

// Forget takes the open invitations to an account out with a batch that a person (by) sent, or all ("").
func (t *Teams) Forget(ctx context.Context, b *state.Batch, account, by string) error {
	list, err := t.invitations(ctx, account)
	if err != nil {
		return err
	}
	for _, r := range list {
		if by == "" || r.By == by {
			t.withdraw(b, r)
		}
	}
	return nil
}
