package control

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// memory is what a process takes, in bytes.
type memory struct {
	// Peak and Resident are VmHWM and VmRSS, the latter when garbage was given back;
	// Before is VmRSS until then.
	Peak     int64 `json:"peak"`
	Before   int64 `json:"before"`
	Resident int64 `json:"resident"`
	// Heap is what Go's live objects take.
	Heap int64 `json:"heap"`
}

// settledMemory returns what this process takes when everything that is garbage
// was given back. The peak is that of before.
func settledMemory() (memory, error) {
	var m memory
	var err error
	if m.Peak, err = kilobytes("/proc/self/status", "VmHWM"); err != nil {
		return m, err
	}
	if m.Before, err = kilobytes("/proc/self/status", "VmRSS"); err != nil {
		return m, err
	}
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.Heap = int64(stats.HeapAlloc)
	m.Resident, err = kilobytes("/proc/self/status", "VmRSS")
	return m, err
}

// kernelMemory returns what of the machine's memory the kernel has in slabs, in
// vmalloc and in per-CPU data. Everything on the machine changes it.
func kernelMemory() (int64, error) {
	return kilobytes("/proc/meminfo", "Slab", "VmallocUsed", "Percpu")
}

// kilobytes sums lines like "VmRSS:  123 kB" of a file, and returns bytes.
func kilobytes(file string, names ...string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum, found := int64(0), 0
	for s := bufio.NewScanner(f); s.Scan(); {
		name, rest, ok := strings.Cut(s.Text(), ":")
		if !ok {
			continue
		}
		for _, n := range names {
			if n != name {
				continue
			}
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s of %s: %w", name, file, err)
			}
			sum, found = sum+kb<<10, found+1
		}
	}
	if found != len(names) {
		return 0, fmt.Errorf("%s lacks one of %v", file, names)
	}
	return sum, nil
}
