package exchange

// Phase is a fixed point on a request's way at which stages run. Phases run in the order of their values.
type Phase uint8

// The phases, in order.
const (
	Authenticate  Phase = iota // who calls: stages are alternatives, the first identity wins
	Authorize                  // may this caller do this
	Admit                      // may it be done now: rates, holds
	Route                      // which upstream or model target
	RequestPhase               // change what goes out
	ResponsePhase              // change what comes back
	AccountPhase               // settle; runs always, also when the client has gone
	PhaseCount                 // how many there are
)

var phaseNames = [PhaseCount]string{"authenticate", "authorize", "admit", "route", "request", "response", "account"}

// String returns the word used in HCL, the ABI, metrics and logs.
func (p Phase) String() string {
	if p < PhaseCount {
		return phaseNames[p]
	}
	return "unknown"
}

// ParsePhase finds the phase called name.
func ParsePhase(name string) (Phase, bool) {
	for i, n := range phaseNames {
		if n == name {
			return Phase(i), true
		}
	}
	return 0, false
}
