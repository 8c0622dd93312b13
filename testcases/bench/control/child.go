package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// childVariable tells a process what sort of child it is.
const childVariable = "PORTCULLIS_BENCH_CONTROL"

// Child does the work of a child and ends the process, if this process was started by
// Run as one, and otherwise returns at once. A program that calls Run has to call it
// first.
func Child() {
	sort := os.Getenv(childVariable)
	if sort == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	err := fmt.Errorf("%s=%s: no such child", childVariable, sort)
	switch sort {
	case "engine":
		err = answer(ctx, in, out, runEngine)
	case "ranges":
		err = answer(ctx, in, out, runRanges)
	case "agent":
		err = runAgent(ctx, in, out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// answer reads a job, does it, and writes the result.
func answer[J, R any](ctx context.Context, in *json.Decoder, out *json.Encoder, do func(context.Context, J) (R, error)) error {
	var job J
	if err := in.Decode(&job); err != nil {
		return err
	}
	r, err := do(ctx, job)
	if err != nil {
		return err
	}
	return out.Encode(r)
}

// child is a process that this one has started.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	// release ends the goroutine whose thread has started the process.
	release chan struct{}
	closed  bool
}

// startChild starts this program as a child. It is ended when ctx ends, and killed
// when this process ends. Files become its descriptors 3, 4, …
func startChild(ctx context.Context, sort string, files ...*os.File) (*child, error) {
	if os.Getenv(childVariable) != "" {
		return nil, errors.New("main has to call control.Child first")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+sort)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, files
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out), release: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that has started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-c.release
	}()
	if err := <-started; err != nil {
		close(c.release)
		return nil, fmt.Errorf("start child: %w", err)
	}
	return c, nil
}

// ask sends a request and waits for the answer.
func (c *child) ask(request, answer any) error {
	if err := c.enc.Encode(request); err != nil {
		return err
	}
	return c.dec.Decode(answer)
}

// close ends the child and waits for it. A second call does nothing.
func (c *child) close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	defer close(c.release)
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	return nil
}

// askChild runs a child that does one job.
func askChild(ctx context.Context, sort string, job, result any) error {
	c, err := startChild(ctx, sort)
	if err != nil {
		return err
	}
	err = c.ask(job, result)
	return errors.Join(err, c.close())
}

// measureEngine runs a child of the sort "engine".
func measureEngine(ctx context.Context, job engineJob) (*engineResult, error) {
	var r engineResult
	if err := askChild(ctx, "engine", job, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", job.Size, err)
	}
	return &r, nil
}
