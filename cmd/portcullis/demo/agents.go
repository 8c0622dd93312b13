package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// patience is how long an agent may take for anything.
const patience = 20 * time.Second

// agentProcess is the agent of one node.
type agentProcess struct {
	node string
	pid  int
	warn func(line string)
	done chan struct{} // closed when it has ended

	mu      sync.Mutex
	inForce map[string]time.Time // when each revision was last reported, by the agent's clock
	changed chan struct{}        // closed and replaced at each report
	tail    []string             // last lines of its log
	err     error                // after done
}

// startAgent starts an agent inside a node's network namespace. It ends with this
// process: the kernel kills it when the thread that started it ends, which
// therefore belongs to it alone.
func startAgent(l *lab.Lab, node string, command []string, manifests string, warn func(string)) (*agentProcess, error) {
	args := slices.Concat(command[1:], []string{"--node-name", node, "--manifests", manifests, "--log-format", "json"})
	cmd := exec.Command(command[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C is for us; we end it in order
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	p := &agentProcess{
		node:    node,
		warn:    warn,
		done:    make(chan struct{}),
		inForce: map[string]time.Time{},
		changed: make(chan struct{}),
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		err := l.In(node, cmd.Start)
		started <- err
		if err != nil {
			return
		}
		p.follow(log)
		err = cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start agent on %s: %w", node, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// follow reads the log until the agent ends.
func (p *agentProcess) follow(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.read(lines.Text())
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
}

func (p *agentProcess) read(line string) {
	const keep = 12
	var entry struct {
		Time     time.Time `json:"time"`
		Level    string    `json:"level"`
		Msg      string    `json:"msg"`
		Revision string    `json:"revision"`
	}
	isJSON := json.Unmarshal([]byte(line), &entry) == nil
	p.mu.Lock()
	p.tail = append(p.tail, line)
	if len(p.tail) > keep {
		p.tail = p.tail[1:]
	}
	if isJSON && entry.Msg == "in force" {
		p.inForce[entry.Revision] = entry.Time
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.mu.Unlock()
	if !isJSON || entry.Level == "WARN" || entry.Level == "ERROR" {
		p.warn(line)
	}
}

// await waits until the agent says that a revision is in force, at since or later,
// and returns when that was.
func (p *agentProcess) await(ctx context.Context, revision string, since time.Time) (time.Time, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		p.mu.Lock()
		at, ok := p.inForce[revision]
		changed := p.changed
		p.mu.Unlock()
		if ok && !at.Before(since) {
			return at, nil
		}
		select {
		case <-changed:
		case <-p.done:
			return at, p.failure("the agent has ended")
		case <-timeout.C:
			return at, p.failure(fmt.Sprintf("revision %.12s is not in force after %v", revision, patience))
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
}

// failure is an error with the end of the agent's log.
func (p *agentProcess) failure(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		what += " (" + p.err.Error() + ")"
	}
	return fmt.Errorf("%s: %s; its log ends with:\n  %s", p.node, what, strings.Join(p.tail, "\n  "))
}

// stop ends the agent in order and, if that takes too long, at once.
func (p *agentProcess) stop() error {
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(3 * time.Second):
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
	return errors.New(p.node + ": the agent did not end when told to and was killed")
}
