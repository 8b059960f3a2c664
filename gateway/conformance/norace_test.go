//go:build !race

package conformance

// raceDetector says that everything takes several times as long and as much memory.
const raceDetector = false
