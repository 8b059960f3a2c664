//go:build !race

package plugintest

// raceDetector says that this process is too slow to compile modules.
const raceDetector = false
