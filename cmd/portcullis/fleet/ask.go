package fleet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/util/exec"
)

// Bounds of what an agent's pod can make a caller keep.
const (
	maxAnswer = 64 << 20
	maxLine   = 1 << 20
	maxStderr = 2 << 10
)

// parallel is how many agents are asked at once for an answer.
const parallel = 16

// Runner runs a command in a pod of an agent, until it ends or ctx does. An exit code that
// is not 0 is an exec.CodeExitError. Stdin may be nil.
type Runner interface {
	Run(ctx context.Context, pod string, command []string, stdin io.Reader, stdout, stderr io.Writer) error
}

// Answer is what an agent said.
type Answer struct {
	Agent Agent
	// Out is what the command printed; it may have something in it even with Err.
	Out []byte
	// Code is the exit code.
	Code int
	// Err says why there is no answer to be had. An exit code alone is no reason.
	Err error
	// Said is the beginning of what the command printed on its stderr.
	Said string
}

// Ask runs a command in the pod of every agent and returns their answers in the order of
// agents. Each has the time of timeout. Progress, which may be nil, is called from one
// goroutine.
func Ask(ctx context.Context, r Runner, agents []Agent, command []string, timeout time.Duration, progress func(done, total int)) []Answer {
	out := make([]Answer, len(agents))
	places, done := make(chan struct{}, parallel), make(chan struct{})
	for i, a := range agents {
		go func() {
			places <- struct{}{}
			out[i] = ask(ctx, r, a, command, timeout)
			<-places
			done <- struct{}{}
		}()
	}
	for i := range agents {
		<-done
		if progress != nil {
			progress(i+1, len(agents))
		}
	}
	return out
}

func ask(ctx context.Context, r Runner, a Agent, command []string, timeout time.Duration) Answer {
	out := Answer{Agent: a}
	if a.Pod == "" {
		out.Err = errors.New(a.Why)
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stdout, stderr := &bounded{most: maxAnswer}, &bounded{most: maxStderr}
	err := r.Run(ctx, a.Pod, command, nil, stdout, stderr)
	out.Out, out.Said = stdout.bytes(), strings.TrimSpace(string(stderr.bytes()))
	var code exec.CodeExitError
	switch {
	case errors.As(err, &code):
		out.Code = code.Code
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		out.Err = fmt.Errorf("no answer within %v", timeout)
	case err != nil:
		out.Err = err
	case stdout.over():
		out.Err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return out
}

// bounded keeps the beginning of what is written to it. The client that writes may not
// have ended when its result is read.
type bounded struct {
	mu      sync.Mutex
	most    int
	text    bytes.Buffer
	dropped bool
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := b.most - b.text.Len(); room < len(p) {
		b.dropped = true
		b.text.Write(p[:room])
		return len(p), nil
	}
	return b.text.Write(p)
}

func (b *bounded) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.text.Bytes())
}

func (b *bounded) over() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// Follow runs a command in the pod of every agent at once, and hands over what they print
// line by line, without the line's end, until all have ended or ctx has. Line is called by
// one goroutine at a time, and so is ended: once for each agent with the reason, which is
// nil if its command ended well. Where Line blocks, the agents wait.
//
// The command's stdin ends when the call does: a command that nobody reads any more is to
// end by that, as it learns of it in no other way while it has nothing to print.
func Follow(ctx context.Context, r Runner, agents []Agent, command []string, line func(Agent, []byte), ended func(Agent, error)) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, a := range agents {
		all.Go(func() {
			err := follow(ctx, r, a, command, func(text []byte) {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil {
					line(a, text)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			ended(a, err)
		})
	}
	all.Wait()
}

func follow(ctx context.Context, r Runner, a Agent, command []string, line func([]byte)) error {
	if a.Pod == "" {
		return errors.New(a.Why)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	held, hold := io.Pipe()
	defer hold.Close()
	context.AfterFunc(ctx, func() { _ = hold.Close() })
	read, write := io.Pipe()
	stderr := &bounded{most: maxStderr}
	result := make(chan error, 1)
	go func() {
		err := r.Run(ctx, a.Pod, command, held, write, stderr)
		_ = write.Close()
		result <- err
	}()
	lines := bufio.NewScanner(read)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line(lines.Bytes())
	}
	cancel()
	_ = read.Close() // whoever still writes is not held up
	err := <-result
	var code exec.CodeExitError
	switch said := strings.TrimSpace(string(stderr.bytes())); {
	case lines.Err() != nil:
		return fmt.Errorf("read its answer: %w", lines.Err())
	case errors.As(err, &code) && said != "":
		return fmt.Errorf("%s (exit code %d)", said, code.Code)
	}
	return err
}
