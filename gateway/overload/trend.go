package overload

import (
	"math"
	"time"
)

// trend follows an upstream's answers. With a tolerance of 0 it only heeds what they say, see heed. Otherwise it looks at their time
// too, and finds the limit that an upstream needs: the smallest that does not cost throughput, or nearly.
//
// It looks at windows of answers. The least mean time of a window that was seen with room to spare is what an answer takes
// when nobody is in its way. While somebody was turned away or had to wait, and the mean is within tolerance times that, the
// limit grows. When the mean is above, either the requests are in each other's way, or they have become more work. Which of
// the two it is a trial shows, though seldom where nobody was turned away so far: the limit is lowered, what is under way drains, and a window is measured. When no throughput
// was lost, the requests had only been waiting behind one another; the lower limit stays. When some was lost, the limit was
// needed: it is restored, and what was measured is the new least. The same trial shows, now and then and at the beginning,
// whether the least is still true: one that was only ever measured under load is worth nothing.
//
// It is guarded by its Limiter's lock.
type trend struct {
	// The window.
	begun   time.Duration
	n       int           // answers
	timed   int           // those whose time was taken,
	sum     time.Duration // together
	failed  int           // answers that tell of overload
	peak    int           // most in flight
	pressed bool          // somebody found no room
	turns   uint32        // that began
	every   uint32        // one turn in so many is timed: reading the clock costs more than all else here

	least   time.Duration // mean of a window with room to spare; 0: not known
	checked time.Duration // when it was last seen to be true
	trust   time.Duration // how long it is believed
	missed  time.Duration // when a trial last lowered a limit that was needed; 0: never
	natural time.Duration // the least mean since then of windows in which nobody found no room
	known   bool          // it was measured with room to spare, and not only under load
	eager   bool          // the limit may double: that was of use so far
	climbed float64       // answers a second before it last did
	highs   int           // windows in a row whose answers took too long

	// The trial.
	phase  phase
	answer time.Duration // the mean before it: for twice that somebody may be kept waiting for its sake
	until  time.Duration // draining: when the window of the trial begins
	from   int           // the limit to return to
	rate   float64       // answers a second to be reached
	verify bool          // go on until throughput falls
}

type phase uint8

const (
	steady phase = iota
	draining
	measuring
)

const (
	windowTime    = 100 * time.Millisecond // a window lasts at least so long,
	windowMean    = 1                      // and so many times the time of an answer, but no longer than
	windowMost    = 10 * time.Second       // so long, because of that,
	windowAnswers = 50                     // and has so many answers
	windowTimed   = 20                     // of which so many were timed
	windowMany    = 1000                   // with so many, not all are timed,
	timedEvery    = 16                     // but one in so many
	windowStale   = time.Minute            // one that has not by then is given up
	checkTime     = 30 * time.Second       // how long a least is believed,
	checkMeans    = 20                     // but at least so many answers' time;
	doubtTime     = 2 * time.Second        // at first so long, when it is much higher than the one before,
	doubtMeans    = 5                      // or so many answers' time
	moreRate      = 1.2                    // of throughput: more than before,
	muchRate      = 1.5                    // and so much more that it is no chance
	firstStep     = 0.5                    // what a trial lowers the limit to while the least is not known,
	nextStep      = 0.7                    // and later
	overloadShare = 10                     // one answer in so many may tell of overload
	growShare     = 4                      // where the time of answers says nothing, the limit grows by one in so many
)

// turn notes that there is another turn with so many in flight, and reports whether it is to be timed.
func (t *trend) turn(inFlight int) bool {
	t.peak = max(t.peak, inFlight)
	t.turns++
	return t.every <= 1 || t.turns%t.every == 0
}

// sample notes that one of the answers took latency, and returns the limit from now on.
func (t *trend) sample(b *Bounds, limit int, now, latency time.Duration) int {
	if t.phase == draining {
		if now < t.until {
			return limit
		}
		t.phase = measuring
		t.open(now)
	}
	if age := now - t.begun; age > windowStale || t.timed == 0 && age > windowTime {
		// Nobody asked for a while, or hardly anybody: what was seen before does not belong to what comes now.
		pressed, peak := t.pressed && t.timed == 0, t.peak
		t.open(max(now-latency, t.begun))
		t.pressed, t.peak, t.n = pressed, peak, 1
		if t.phase == measuring && age > windowStale {
			t.phase = steady
			limit = min(t.from, b.Max)
		}
	}
	t.timed++
	t.sum += latency
	age, mean := now-t.begun, t.sum/time.Duration(t.timed)
	if t.n < windowAnswers || t.timed < windowTimed || age < windowTime || age < min(windowMean*mean, windowMost) {
		return limit
	}
	every := uint32(1)
	if t.n >= windowMany {
		every = timedEvery
	}
	limit = t.closed(b, limit, now, max(mean, 1), float64(t.n)/age.Seconds())
	t.open(now)
	t.every = every
	return min(max(limit, b.Min), b.Max)
}

// quiet reports whether there is nothing to heed, as nearly always. It does not read the clock.
func (t *trend) quiet() bool {
	if t.pressed || t.failed > 0 {
		return false
	}
	if t.n >= windowAnswers {
		t.open(0)
	}
	return true
}

// heed looks at what answers say of themselves, whatever time they take, and returns the limit from now on: less while more
// than one in ten tells of overload, and more while somebody finds no room.
func (t *trend) heed(limit int, now time.Duration) int {
	if t.begun == 0 {
		t.begun = now
	}
	age, all := now-t.begun, t.n+t.failed
	if age < windowTime || all < windowAnswers && age < windowMost {
		return limit
	}
	switch {
	case t.failed*overloadShare > all:
		limit = int(float64(min(limit, t.peak)) * nextStep)
	case t.pressed:
		limit += max(limit/growShare, 1)
	}
	t.open(now)
	return limit
}

func (t *trend) open(now time.Duration) {
	t.begun, t.n, t.timed, t.sum, t.failed, t.peak, t.pressed = now, 0, 0, 0, 0, 0, false
}

// closed looks at a window that is over.
func (t *trend) closed(b *Bounds, limit int, now, mean time.Duration, rate float64) int {
	if t.phase == measuring {
		return t.judge(b, limit, now, mean, rate)
	}
	if t.least == 0 || mean < t.least {
		t.least, t.checked = mean, now
	}
	if t.high(b, mean) {
		t.highs++
	} else {
		t.highs = 0
	}
	if !t.pressed {
		if t.climbed > 0 && rate < muchRate*t.climbed { // twice as many were of little use: go there step by step
			t.climbed, t.eager = 0, false
			return limit / 2
		}
		t.climbed = 0
		if t.highs > 1 && (t.missed == 0 || now-t.missed > t.trust) {
			return t.try(b, min(limit, t.peak), now, mean, rate, false)
		}
		if t.natural == 0 || mean < t.natural {
			t.natural = mean
		}
		if now-t.checked > t.trust {
			t.confirm(now, t.natural)
		}
		return limit
	}
	if t.eager && t.highs == 0 {
		// Begin as TCP does: twice as many, as long as that serves more.
		if t.climbed == 0 || rate > moreRate*t.climbed {
			t.climbed = rate
			return 2 * limit
		}
		t.eager = false
	}
	switch {
	case t.highs > 1, t.highs > 0 && t.eager:
		// A second window, because the first may be from before and after a change: there is nothing to compare with.
		return t.try(b, limit, now, mean, rate, !t.known)
	case t.highs > 0:
		return limit
	case !t.known, now-t.checked > t.trust:
		return t.try(b, limit, now, mean, rate, true)
	}
	return limit + int(math.Sqrt(float64(limit)))
}

// high reports whether answers take too long, or tell of overload themselves.
func (t *trend) high(b *Bounds, mean time.Duration) bool {
	return float64(mean) > b.Tolerance*float64(t.least) || t.failed*overloadShare > t.n
}

// confirm notes what an answer takes when nobody is in its way.
func (t *trend) confirm(now, mean time.Duration) {
	most := max(checkTime, checkMeans*mean)
	switch t.trust = min(2*t.trust, most); {
	case t.least == 0 || t.trust == 0:
		t.trust = most
	case mean > t.least+t.least/2: // much changed, and perhaps while it was measured
		t.trust = max(doubtTime, doubtMeans*mean)
	}
	t.least, t.checked, t.natural, t.known, t.verify, t.highs = mean, now, 0, true, false, 0
}

// trying reports whether a trial is under way.
func (t *trend) trying() bool { return t.phase != steady }

// try begins a trial.
func (t *trend) try(b *Bounds, limit int, now, mean time.Duration, rate float64, verify bool) int {
	step := nextStep
	if !t.known {
		step = firstStep
	}
	next := max(int(float64(limit)*step), b.Min)
	if next >= limit {
		t.confirm(now, mean) // with fewer nothing is served: it takes what it takes
		return limit
	}
	t.phase, t.answer, t.until, t.from, t.rate, t.verify = draining, mean, now+mean, limit, rate, verify
	return next
}

// judge ends a trial.
func (t *trend) judge(b *Bounds, limit int, now, mean time.Duration, rate float64) int {
	t.phase = steady
	switch {
	case !t.pressed: // less is asked now, so that the limit does not matter
		t.confirm(now, min(t.least, mean))
		return t.from
	case rate < t.rate*(1+float64(limit)/float64(t.from))/2: // nearer to what the limit lost than to no loss: it was needed
		t.missed = now
		t.confirm(now, mean)
		return t.from
	}
	t.eager, t.highs = false, 0
	t.least = min(t.least, mean)
	if t.verify || t.high(b, mean) {
		return t.try(b, limit, now, mean, max(rate, t.rate), t.verify)
	}
	return limit
}
