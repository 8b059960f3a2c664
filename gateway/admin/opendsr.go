package admin

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"io"
	"net/http"

	"github.com/postern-gateway/postern/gateway/opendsr"
	"github.com/postern-gateway/postern/gateway/rights"
)

func (a *API) opendsrDiscovery(*http.Request) (any, error) {
	if _, err := a.register(); err != nil {
		return nil, err
	}
	return opendsr.Understood(), nil
}

// opendsrAsk makes a request of one that a controller passes on.
func (a *API) opendsrAsk(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid", "The body is too long, or did not come to its end.")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var in opendsr.Request
	if err := read(r, &in); err != nil {
		return nil, err
	}
	kind, err := in.Check()
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid", "%s", err)
	}
	person, err := a.identified(r, in.Identities)
	if err != nil {
		return nil, err
	}
	q, err := reg.Ask(r.Context(), person, kind, "", in.ID)
	if err != nil {
		return nil, refusedRight(err)
	}
	detail(r, "request", q.ID)
	receipt, err := reg.Receipt(q)
	return &opendsr.Received{Controller: a.actor(r), Expected: opendsr.Expected(q), Received: q.Made, EncodedRequest: base64.StdEncoding.EncodeToString(body), ID: q.Outside, Receipt: receipt}, err
}

// identified is the one person whom all identities name.
func (a *API) identified(r *http.Request, list []opendsr.Identity) (person string, err error) {
	for _, one := range list {
		id := one.Value
		switch {
		case one.Format != "raw" || one.Value == "":
			return "", refuse(http.StatusBadRequest, "invalid", "identity_format is raw, and identity_value is needed.")
		case one.Type == "email":
			p, err := a.config.Storage.People.People.Find(r.Context(), one.Value)
			if err != nil {
				return "", refusedRight(err)
			}
			id = p.ID
		case one.Type != "controller_customer_id":
			return "", refuse(http.StatusBadRequest, "invalid", "identity_type is email or controller_customer_id.")
		}
		if id != cmp.Or(person, id) {
			return "", refuse(http.StatusBadRequest, "invalid", "subject_identities name more than one person.")
		}
		person = id
	}
	return person, nil
}

func (a *API) opendsrStatus(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	q, err := reg.Outside(r.Context(), r.PathValue("outside"))
	if err != nil {
		return nil, refusedRight(err)
	}
	return a.opendsr(r, reg, q)
}

func (a *API) opendsr(r *http.Request, reg *rights.Register, q rights.Request) (any, error) {
	s := opendsr.StatusOf(q)
	s.Controller, s.ID = a.actor(r), r.PathValue("outside") // which a completed deletion has forgotten
	var err error
	s.Receipt, err = reg.Receipt(q)
	return s, err
}

// opendsrCancel takes a request back (section 9).
func (a *API) opendsrCancel(r *http.Request) (any, error) {
	reg, err := a.register()
	if err != nil {
		return nil, err
	}
	q, err := reg.Outside(r.Context(), r.PathValue("outside"))
	if err == nil {
		detail(r, "request", q.ID)
		if q.Person == "" {
			err = rights.ErrOver
		} else {
			q, err = reg.Cancel(r.Context(), q.Person, q.ID)
		}
	}
	if err != nil {
		return nil, refusedRight(err)
	}
	return a.opendsr(r, reg, q)
}
