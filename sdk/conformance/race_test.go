//go:build race

package conformance_test

// raceEnabled: the race detector makes events take twenty times as long.
const raceEnabled = true
