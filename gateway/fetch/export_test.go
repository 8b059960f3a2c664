package fetch

import "net/netip"

// Pending is how many flights are under way or wait for a place.
func (f *Fetcher) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending
}

// Held is what answers hold, in octets.
func (f *Fetcher) Held() int64 { return f.held.Load() }

// ClassOf is the word for an address's class.
func ClassOf(a netip.Addr) string { return [...]string{"never", "private", "public"}[class(a)] }
