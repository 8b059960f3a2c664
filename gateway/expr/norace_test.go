//go:build !race

package expr

// raced says that the race detector is on.
const raced = false
