package datapath

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// clock tells how long a thread has worked.
type clock int32

const (
	// threadTime is the time that the calling thread had a processor. What the
	// kernel does for a packet that the thread sends counts, because it does it
	// before the call that sends returns.
	threadTime clock = unix.CLOCK_THREAD_CPUTIME_ID
	// wallTime is for kernels that keep the time of softirqs apart from that of
	// the thread they interrupt (CONFIG_IRQ_TIME_ACCOUNTING). Whatever else runs on
	// the processor disturbs it.
	wallTime clock = unix.CLOCK_MONOTONIC
	// processTime is that of all threads of the process.
	processTime clock = unix.CLOCK_PROCESS_CPUTIME_ID
)

// ofProcess returns the clock that tells of all threads what c tells of one.
func (c clock) ofProcess() clock {
	if c == threadTime {
		return processTime
	}
	return c
}

func (c clock) now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(c), &t); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", c, err)
	}
	return time.Duration(t.Nano()), nil
}

// measure returns how long f works. The calling goroutine has to be pinned.
func (c clock) measure(f func() error) (time.Duration, error) {
	before, err := c.now()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := c.now()
	return after - before, err
}

// pieces returns how many seconds f works, each of n times, or less often if most
// is over before. The calling goroutine has to be pinned.
func (c clock) pieces(n int, most time.Duration, f func() error) ([]float64, error) {
	times := make([]float64, 0, n)
	start := time.Now()
	before, err := c.now()
	for err == nil && len(times) < n && (len(times) == 0 || time.Since(start) < most) {
		if err := f(); err != nil {
			return nil, err
		}
		var after time.Duration
		after, err = c.now()
		times = append(times, (after - before).Seconds())
		before = after
	}
	return times, err
}

// fittingClock tells, from work that is done in softirqs for the most part, which
// clock counts it: of some tries, that which was disturbed least decides.
func fittingClock(work func() error) (clock, error) {
	best := 0.0
	for range 8 {
		var wall time.Duration
		thread, err := threadTime.measure(func() (err error) {
			wall, err = wallTime.measure(work)
			return err
		})
		if err != nil {
			return 0, err
		}
		best = max(best, float64(thread)/float64(wall))
	}
	if best < 0.7 {
		return wallTime, nil
	}
	return threadTime, nil
}

// pinned runs f on a thread of its own that keeps to one processor, the last of
// those that the process may use.
func pinned(f func() error) error {
	runtime.LockOSThread()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("read processor affinity: %w", err)
	}
	var one unix.CPUSet
	for cpu := len(may)*64 - 1; cpu >= 0; cpu-- {
		if may.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("keep to one processor: %w", err)
	}
	defer func() {
		// A thread that cannot be freed stays locked, and ends with its goroutine.
		if unix.SchedSetaffinity(0, &may) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}
