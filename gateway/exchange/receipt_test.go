package exchange

import "testing"

func TestReceiptJSON(t *testing.T) {
	t.Parallel()
	amount, _ := ParseAmount("0.000015")
	balance, _ := ParseAmount("9.5")
	r := Receipt{ID: "edge-1-3-42", Account: "a-secret", Model: "small", Price: "small@2026", Amount: amount, Balance: balance}
	want := `{"id":"edge-1-3-42","model":"small","units":{},"estimated":false,"price":"small@2026","amount":"0.000015","balance":"9.50"}`
	if got := string(r.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.Usage.Units[Input], r.Usage.Units[Requests], r.Usage.Estimated = 5, 1, true
	want = `{"id":"edge-1-3-42","model":"small","units":{"input":5,"request":1},"estimated":true,"price":"small@2026","amount":"0.000015","balance":"9.50"}`
	if got := string(r.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
