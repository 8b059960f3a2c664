//go:build !race

package account

// raced says that the race detector is on.
const raced = false
