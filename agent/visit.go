package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// visits lets other goroutines look at what belongs to the loop.
type visits struct {
	in    chan<- func(*loop)
	ended <-chan struct{} // closed when the loop has ended
}

var errEnded = errors.New("the agent has ended")

// do has the loop run f between two of its turns, and returns when it has. f must not
// change anything of the loop's and not take long: packets wait for the loop's writes.
// Nothing is written because of it. An error says that f did not run, or panicked.
func (v visits) do(ctx context.Context, f func(*loop)) error {
	done := make(chan error, 1)
	visit := func(l *loop) {
		// Whoever asks must not be able to end the agent.
		defer func() {
			if r := recover(); r != nil {
				l.log.Error("panic while the loop was asked", "panic", r, "stack", string(debug.Stack()))
				done <- fmt.Errorf("panic: %v", r)
			}
		}()
		f(l)
		done <- nil
	}
	select {
	case v.in <- visit:
		return <-done
	case <-v.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("the agent is busy: %w", context.Cause(ctx))
	}
}
