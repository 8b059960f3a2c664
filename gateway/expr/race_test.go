//go:build race

package expr

// raced says that the race detector is on; under it a sync.Pool loses things on purpose.
const raced = true
