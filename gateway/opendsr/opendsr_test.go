package opendsr

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/rights"
)

const erasure = `{"regulation":"gdpr","subject_request_id":"a7551968-d5d6-44b2-9831-815ac9017798","subject_request_type":"erasure","submitted_time":"2026-11-24T15:00:00Z",
	"subject_identities":[{"identity_type":"email","identity_value":"ann@example.org","identity_format":"raw"}],"extensions":{"example.org":{"n":1}}}`

func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"", "{}", erasure, `{"subject_identities":[]}`, `{"submitted_time":"0001-01-01T00:00:00Z"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var in Request
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		kind, err := in.Check()
		if (kind == "") != (err != nil) || err == nil && (len(in.ID) != 36 || len(in.Identities) == 0 || len(in.Callbacks) > 0) {
			t.Errorf("%q, %v: %+v", kind, err, in)
		}
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	for state, want := range map[rights.State]string{rights.Pending: "pending", rights.InProgress: "in_progress", rights.Completed: "completed", rights.Cancelled: "cancelled", rights.Refused: "cancelled"} {
		if s := StatusOf(rights.Request{State: state, Made: made}); s.Status != want || !s.Expected.Equal(made.Add(24*time.Hour)) {
			t.Errorf("%s: %+v", state, s)
		}
	}
	if s := StatusOf(rights.Request{Due: made}); !s.Expected.Equal(made) {
		t.Errorf("%+v", s)
	}
}
