package main

import "math/bits"

// limit is one limit: count things each period, burst of them at once. It is kept by the generic cell rate algorithm
// (ITU-T I.371, virtual scheduling): all that is stored is a point in time, the theoretical arrival time at which
// everything used so far would have been used at the even rate. A limit with count 0 does not limit.
type limit struct {
	count  int64 // things in a period, 1 to 999,999,999
	period int64 // nanoseconds
	burst  int64 // 1 to 1,000,000,000
}

// cost is how long n things take at the even rate, in nanoseconds, rounded up: nobody gets more than the limit by rounding.
func (l limit) cost(n int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(l.period))
	lo, carry := bits.Add64(lo, uint64(l.count)-1, 0)
	hi += carry
	if hi >= uint64(l.count) {
		return 1<<62 - 1
	}
	q, _ := bits.Div64(hi, lo, uint64(l.count))
	return int64(min(q, 1<<62-1))
}

// use tells what becomes of arrival, the theoretical arrival time, when n things are used now, and when that is allowed:
// wait is 0, or how long until it is. More than the burst at once counts as the burst.
func (l limit) use(arrival, now, n int64) (next, wait int64) {
	next = max(arrival, now) + l.cost(min(n, l.burst))
	return next, max(0, next-now-l.cost(l.burst))
}

// left is how many things can be used at once now.
func (l limit) left(arrival, now int64) int64 {
	free := l.cost(l.burst) - max(0, arrival-now)
	if free <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(free), uint64(l.count))
	if hi >= uint64(l.period) {
		return l.burst
	}
	n, _ := bits.Div64(hi, lo, uint64(l.period))
	return int64(min(n, uint64(l.burst)))
}

// parseRate reads "100/s". ok is false when it is not that; an empty text is no limit.
func parseRate(text []byte) (count, period int64, ok bool) {
	i := 0
	for i < len(text) && i < 9 && text[i]-'0' < 10 {
		count = count*10 + int64(text[i]-'0')
		i++
	}
	if count == 0 || len(text) != i+2 || text[i] != '/' {
		return 0, 0, len(text) == 0
	}
	const second = 1_000_000_000
	switch text[i+1] {
	case 's':
		return count, second, true
	case 'm':
		return count, 60 * second, true
	case 'h':
		return count, 3600 * second, true
	case 'd':
		return count, 86400 * second, true
	}
	return 0, 0, false
}
