// Package process starts programs inside network namespaces, and makes sure
// that none of them outlives this program, however it ends.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Starter starts programs on one thread of its own. The kernel sends the death
// signal of a child when the thread that started it ends, not when the process
// does, so that thread must last; and it has to enter the namespaces, so it
// cannot be shared with the rest of the program.
type Starter struct {
	requests chan func()
	closed   chan struct{}
}

// NewStarter returns a Starter, which lives as long as the program.
func NewStarter() (*Starter, error) { return NewPreparedStarter(func() error { return nil }) }

// NewConfinedStarter returns a Starter for programs that have of all capabilities only
// these (unix.CAP_...) and can gain no others, which is how a container runtime starts a
// container of root that drops all others and does not allow privilege escalation.
func NewConfinedStarter(capabilities ...int) (*Starter, error) {
	return NewPreparedStarter(func() error { return errors.Join(KeepCapabilities(capabilities), ForbidNewPrivileges()) })
}

// NewPreparedStarter returns a Starter whose thread has called a function first. What that
// changes about the thread, every program is started with: its mount namespace (which it
// must not share with the rest of the program), or what it may do.
func NewPreparedStarter(prepare func() error) (*Starter, error) {
	s := &Starter{requests: make(chan func()), closed: make(chan struct{})}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock
		home, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			err = prepare()
		}
		failed <- err
		if err != nil {
			return
		}
		defer home.Close()
		for {
			select {
			case f := <-s.requests:
				f()
			case <-s.closed:
				return
			}
			// A thread that cannot go back starts the next program in the
			// wrong place unless that program names its own.
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(fmt.Sprintf("return to own network namespace: %v", err))
			}
		}
	}()
	return s, <-failed
}

// Close ends the thread and with it the programs that it has started and that still run.
// It must not be called twice.
func (s *Starter) Close() { close(s.closed) }

// KeepCapabilities takes away from the programs that this thread will start all
// capabilities that they would get by being root, but these. The thread itself keeps
// them: it has to enter network namespaces.
func KeepCapabilities(keep []int) error {
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		return err
	}
	for c := range n + 1 {
		if slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// ForbidNewPrivileges sees to it that the programs that this thread will start can gain
// no capability.
func ForbidNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

// Spec says what to start.
type Spec struct {
	Name  string   // for errors
	Path  string   // of the program
	Args  []string // without the program's name
	Env   []string // nil: this program's own
	Dir   string   // where it starts; empty: where this program is
	Root  string   // its root folder, in which Path and Dir are looked for; empty: this program's own
	NetNS int      // descriptor of the network namespace; 0: this program's own

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Process is a program that was started.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a program as the leader of a process group of its own, so that
// an interrupt at the terminal reaches only this program.
func (s *Starter) Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Stdin, spec.Stdout, spec.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Chroot: spec.Root}
	cmd.WaitDelay = 5 * time.Second // for output, once the program has ended
	started := make(chan error, 1)
	request := func() {
		if spec.NetNS != 0 {
			if err := unix.Setns(spec.NetNS, unix.CLONE_NEWNET); err != nil {
				started <- fmt.Errorf("enter network namespace: %w", err)
				return
			}
		}
		started <- cmd.Start()
	}
	select {
	case s.requests <- request:
	case <-s.closed:
		started <- errors.New("its starter is closed")
	}
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{name: spec.Name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run starts a program and waits for it. If the context ends first, the program
// is killed.
func (s *Starter) Run(ctx context.Context, spec Spec) error {
	p, err := s.Start(spec)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Stop(0)
		return ctx.Err()
	}
	return p.err
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode returns the exit code, once Done is closed; 128 and the signal's
// number for a program that a signal ended.
func (p *Process) ExitCode() int { return ExitCode(p.err) }

// ExitCode returns the exit code that an error of Run stands for.
func ExitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 1
		}
		return 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// Stop asks the program to end, kills its group if it has not after the grace
// period, and returns when it is gone. Stopping twice does no harm.
func (p *Process) Stop(grace time.Duration) {
	if grace > 0 {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
			return
		case <-time.After(grace):
		}
	}
	select {
	case <-p.done: // its number may be another program's by now
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}
