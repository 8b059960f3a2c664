// Package opendsr is the objects of OpenDSR 2.0, in which controllers pass requests about personal data on. The sections named
// are those of its specification. Its main type is Request.
package opendsr

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/rights"
)

// Version is the version of OpenDSR.
const Version = "2.0"

// Request is a request as a controller passes it on (section 7.1).
type Request struct {
	Regulation string          `json:"regulation"`           // "gdpr" or "ccpa"
	ID         string          `json:"subject_request_id"`   // a UUID of version 4, lower case
	Type       string          `json:"subject_request_type"` // "access", "portability" or "erasure"
	Identities []Identity      `json:"subject_identities"`   // all of one person
	Submitted  time.Time       `json:"submitted_time"`
	Version    string          `json:"api_version,omitempty"`
	Callbacks  []string        `json:"status_callback_urls,omitempty"` // refused: nothing is called
	Extensions json.RawMessage `json:"extensions,omitempty"`           // not looked at: there are none
}

// Identity is how somebody is known (section 5.3).
type Identity struct {
	Type   string `json:"identity_type"` // "email" or "controller_customer_id", a person's id
	Value  string `json:"identity_value,omitempty"`
	Format string `json:"identity_format"` // "raw"
}

// Received answers a request (section 7.3).
type Received struct {
	Controller     string    `json:"controller_id"` // who called, as in the audit log
	Expected       time.Time `json:"expected_completion_time"`
	Received       time.Time `json:"received_time"`
	EncodedRequest string    `json:"encoded_request"` // the request's body in Base64
	ID             string    `json:"subject_request_id"`
	Receipt        string    `json:"receipt"` // as of GET /v1/rights/{request}
}

// Status says how a request stands (section 8.3).
type Status struct {
	Controller string    `json:"controller_id"`
	Expected   time.Time `json:"expected_completion_time"`
	ID         string    `json:"subject_request_id"`
	Status     string    `json:"request_status"` // "pending", "in_progress", "completed" or "cancelled", as which a refusal counts
	Version    string    `json:"api_version"`
	Reason     string    `json:"reason,omitempty"` // of a refusal
	Receipt    string    `json:"receipt"`
}

// Discovery is what is understood (section 6.3).
type Discovery struct {
	Version    string     `json:"api_version"`
	Identities []Identity `json:"supported_identities"`
	Types      []string   `json:"supported_subject_request_types"`
}

// Understood is what of OpenDSR is understood.
func Understood() Discovery {
	return Discovery{Version: Version, Types: []string{"access", "portability", "erasure"},
		Identities: []Identity{{Type: "email", Format: "raw"}, {Type: "controller_customer_id", Format: "raw"}}}
}

// exportTime is how long an export may take, for who asks when it will be done.
const exportTime = 24 * time.Hour

// Expected is when a request should be done.
func Expected(q rights.Request) time.Time {
	if q.Due.IsZero() {
		return q.Made.Add(exportTime)
	}
	return q.Due
}

// Check says what a request asks for, or refuses it with an error that its sender may read.
func (in *Request) Check() (rights.Kind, error) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	kind := map[string]rights.Kind{"access": rights.Export, "portability": rights.Export, "erasure": rights.Deletion}[in.Type]
	wrong := ""
	switch {
	case !slices.Contains([]string{"gdpr", "ccpa"}, in.Regulation):
		wrong = "regulation is gdpr or ccpa."
	case !uuid.MatchString(in.ID):
		wrong = "subject_request_id is a UUID of version 4, in lower case."
	case kind == "":
		wrong = "subject_request_type is access, portability or erasure."
	case in.Submitted.IsZero():
		wrong = "submitted_time is needed."
	case len(in.Callbacks) > 0:
		wrong = "status_callback_urls are not called: ask for the status instead."
	case len(in.Identities) == 0 || len(in.Identities) > 10:
		wrong = "subject_identities are 1 to 10."
	default:
		return kind, nil
	}
	return "", errors.New(wrong)
}

// StatusOf says how a request stands; the caller adds who asks, what the request is called there, and the receipt.
func StatusOf(q rights.Request) Status {
	s := Status{Expected: Expected(q), Status: string(q.State), Version: Version, Reason: q.Reason}
	if q.State == rights.Refused {
		s.Status = string(rights.Cancelled)
	}
	return s
}
