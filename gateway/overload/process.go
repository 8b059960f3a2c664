package overload

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// process reads what a Gate looks at in the process it runs in. It is used by one goroutine, but for used.
type process struct {
	statm   *os.File // nil where the system has none
	page    int64
	samples []metrics.Sample
	before  []uint64 // of the histogram of delays
}

func newProcess() *process {
	p := &process{page: int64(os.Getpagesize()), samples: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	if f, err := os.Open("/proc/self/statm"); err == nil {
		p.statm = f
	}
	return p
}

func (p *process) close() {
	if p.statm != nil {
		_ = p.statm.Close() // it was only read
	}
}

// used is the memory that nobody could take away: what is resident and is no file's, less what the runtime holds free.
// The arenas of the store are mapped files, which the kernel writes back and drops. Without /proc it is the runtime's own memory.
func (p *process) used() int64 {
	runtime := [...]metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(runtime[:])
	free := int64(runtime[2].Value.Uint64())
	if p.statm != nil {
		var b [128]byte
		if n, _ := p.statm.ReadAt(b[:], 0); n > 0 {
			fields := bytes.Fields(b[:n])
			if len(fields) > 2 {
				resident, err := strconv.ParseInt(string(fields[1]), 10, 64)
				shared, err2 := strconv.ParseInt(string(fields[2]), 10, 64)
				if err == nil && err2 == nil {
					return max((resident-shared)*p.page-free, 0)
				}
			}
		}
	}
	return int64(runtime[0].Value.Uint64()-runtime[1].Value.Uint64()) - free
}

// delay is the median of what goroutines waited for since the last call, after they were ready to run. When every processor
// is busy they all wait; one long computation makes only some of them wait.
func (p *process) delay() time.Duration {
	metrics.Read(p.samples)
	if p.samples[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	h := p.samples[0].Value.Float64Histogram()
	if len(p.before) != len(h.Counts) {
		p.before = make([]uint64, len(h.Counts))
	}
	total := uint64(0)
	for i, n := range h.Counts {
		total += n - p.before[i]
	}
	half, median := total/2, 0.0
	for i, n := range h.Counts {
		d := n - p.before[i]
		if total > 0 && half < d {
			median, total = h.Buckets[i], 0
		}
		half -= min(half, d)
		p.before[i] = n
	}
	if math.IsInf(median, 0) || median < 0 {
		return 0
	}
	return time.Duration(median * float64(time.Second))
}

// memoryLimit is the least of the control group's limits, GOMEMLIMIT and the machine's memory; 0 when none is known.
func memoryLimit() int64 {
	limit := int64(math.MaxInt64)
	consider := func(n int64) {
		if n > 0 {
			limit = min(limit, n)
		}
	}
	consider(debug.SetMemoryLimit(-1))
	consider(groupLimit("/proc/self/cgroup", "/sys/fs/cgroup"))
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		consider(machineMemory(string(text)))
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// machineMemory reads MemTotal; 0 when it is not there.
func machineMemory(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if fields := strings.Fields(rest); len(fields) == 2 && fields[1] == "kB" {
				if n, err := strconv.ParseInt(fields[0], 10, 53); err == nil {
					return n << 10
				}
			}
		}
	}
	return 0
}

// groupLimit is the least limit of the control groups that the process is in and those above them, of version 1 or 2; 0 when
// there is none. membership is the file that names the groups, root where they are mounted.
func groupLimit(membership, root string) int64 {
	text, err := os.ReadFile(membership)
	if err != nil {
		return 0
	}
	least := int64(0)
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path, as in cgroups(7); version 2 has hierarchy 0 and no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, file := root, "memory.max"
		switch {
		case parts[1] == "":
		case strings.Contains(","+parts[1]+",", ",memory,"):
			dir, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for path := filepath.Clean("/" + parts[2]); ; path = filepath.Dir(path) {
			if text, err := os.ReadFile(filepath.Join(dir, path, file)); err == nil {
				// Version 1 writes a number near the greatest for none, version 2 "max".
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) {
					least = n
				}
			}
			if path == "/" {
				break
			}
		}
	}
	return least
}
