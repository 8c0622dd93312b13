package node

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// enter runs f on a thread of its own inside a network namespace. What is below
// /proc/sys/net and /proc/thread-self/net belongs to the namespace of the thread
// that opens it. The thread never does anything else: it ends with f.
func enter(netns int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if netns != 0 {
				if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
					return fmt.Errorf("enter the network namespace (this takes CAP_SYS_ADMIN): %w", err)
				}
			}
			return f()
		}()
	}()
	return <-done
}
