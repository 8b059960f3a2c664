package admin

import (
	"errors"
	"net/http"

	"github.com/postern-gateway/postern/gateway/person"
	"github.com/postern-gateway/postern/gateway/rights"
)

// Right is a request about personal data, with its receipt.
type Right struct {
	rights.Request
	Receipt string `json:"receipt,omitempty"` // a JSON Web Signature; GET /v1/rights/key verifies it
}

// Rights is a page of requests, by id.
type Rights struct {
	Requests []Right `json:"requests"`
	Next     string  `json:"next,omitempty"` // what after asks for the page after it
}

// register is the register of requests, which there is where people sign in.
func (a *API) register() (*rights.Register, error) {
	if r := a.config.Storage.Rights; r != nil {
		return r, nil
	}
	return nil, refuse(http.StatusConflict, "no_accounts", "There are no people: the configuration has no accounts block.")
}

// refusedRight has the caller's own mistakes told.
func refusedRight(err error) error {
	for _, known := range []struct {
		err    error
		status int
		code   string
		detail string
	}{
		{rights.ErrNotFound, http.StatusNotFound, "not_found", "There is no such request."},
		{rights.ErrNobody, http.StatusNotFound, "not_found", "There is no such person."},
		{person.ErrInvalid, http.StatusNotFound, "not_found", "There is no such person."}, // no address at all
		{person.ErrNotFound, http.StatusNotFound, "not_found", "There is no such person."},
		{rights.ErrOpen, http.StatusConflict, "open", "This person has an open request of this kind."},
		{rights.ErrOver, http.StatusConflict, "over", "The request is over, or has gone too far for that."},
		{rights.ErrTooMany, http.StatusConflict, "too_many", "Too many requests are kept of this person."},
	} {
		if errors.Is(err, known.err) {
			return refuse(known.status, known.code, "%s", known.detail)
		}
	}
	if errors.Is(err, rights.ErrInvalid) {
		return refuse(http.StatusBadRequest, "invalid", "%s.", err)
	}
	return err
}

// signed is a request with its receipt.
func signed(r *rights.Register, q rights.Request) (Right, error) {
	receipt, err := r.Receipt(q)
	return Right{Request: q, Receipt: receipt}, err
}

// rights lists requests: those that are open, or all with state=all; after is the id to go on behind.
func (a *API) rights(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	all := q.Get("state") == "all"
	if s := q.Get("state"); s != "" && s != "open" && !all {
		return nil, refuse(http.StatusBadRequest, "invalid", "state is open or all.")
	}
	list, err := reg.All(r.Context(), !all, q.Get("after"), rights.MaxList)
	if err != nil {
		return nil, err
	}
	page := Rights{Requests: []Right{}}
	for _, one := range list {
		page.Requests = append(page.Requests, Right{Request: one})
		if len(page.Requests) == rights.MaxList {
			page.Next = one.ID
		}
	}
	return page, nil
}

func (a *API) right(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	q, err := reg.Find(r.Context(), r.PathValue("request"))
	if err != nil {
		return nil, refusedRight(err)
	}
	return signed(reg, q)
}

func (a *API) rightsKey(*http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	return reg.Key(), nil
}

// askRight makes a request for a person who asked by another way, by their id or address.
func (a *API) askRight(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	var in struct {
		Person  string      `json:"person"`
		Email   string      `json:"email"`
		Kind    rights.Kind `json:"kind"`
		Text    string      `json:"text"`
		Outside string      `json:"outside"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if (in.Person == "") == (in.Email == "") {
		return nil, refuse(http.StatusBadRequest, "invalid", "Give either person, an id, or email.")
	}
	if in.Email != "" {
		p, err := a.config.Storage.People.People.Find(r.Context(), in.Email)
		if err != nil {
			return nil, refusedRight(err)
		}
		in.Person = p.ID
	}
	q, err := reg.Ask(r.Context(), in.Person, in.Kind, in.Text, in.Outside)
	if err != nil {
		return nil, refusedRight(err)
	}
	detail(r, "request", q.ID)
	return signed(reg, q)
}

func (a *API) cancelRight(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	id := r.PathValue("request")
	q, err := reg.Find(r.Context(), id)
	if err == nil {
		detail(r, "request", q.ID)
		if q.Person == "" { // deleted
			err = rights.ErrOver
		} else {
			q, err = reg.Cancel(r.Context(), q.Person, id)
		}
	}
	if err != nil {
		return nil, refusedRight(err)
	}
	return signed(reg, q)
}

// decideRight completes a correction that was made, or refuses a request with a reason.
func (a *API) decideRight(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	var in struct {
		State  rights.State `json:"state"`
		Reason string       `json:"reason"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	q, err := reg.Decide(r.Context(), r.PathValue("request"), in.State, in.Reason)
	if err != nil {
		return nil, refusedRight(err)
	}
	detail(r, "request", q.ID)
	return signed(reg, q)
}

// retention is what the last sweep removed.
func (a *API) retention(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	return reg.Swept(r.Context())
}

// sweep removes now what is older than it may be kept.
func (a *API) sweep(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	return reg.Sweep(r.Context())
}
