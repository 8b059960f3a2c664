package http2

import "time"

// budget bounds what costs the server more than the client: resets, of either side, pings, settings, priorities,
// window updates, continuations, empty and unknown frames (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316,
// CVE-2025-8671). A client may cause burst of them at once and a tenth of that each second in the long run. Whoever takes
// much data has much to acknowledge: that is free, by the frames of DATA that were sent.
type budget struct {
	burst, left float64
	filled      time.Time
	free        int64 // window updates and pings that cost nothing
}

func newBudget(burst int) budget {
	return budget{burst: float64(burst), left: float64(burst), filled: time.Now()}
}

// spend takes n; false when there is not as much.
func (b *budget) spend(n int) bool {
	if b.left < float64(n) {
		now := time.Now()
		b.left = min(b.burst, b.left+b.burst/10*now.Sub(b.filled).Seconds())
		b.filled = now
	}
	b.left -= float64(n)
	return b.left >= 0
}

// sent notes a frame of DATA, which the client may acknowledge to the stream and to the connection.
func (b *budget) sent() { b.free += 2 }

// acknowledged is spend for what may be an acknowledgement.
func (b *budget) acknowledged() bool {
	if b.free > 0 {
		b.free--
		return true
	}
	return b.spend(1)
}
