package cni

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// recorder is an agent that notes what it is told. Its Add ends with act, if set.
type recorder struct {
	act func(context.Context) error
	err error

	mu       sync.Mutex
	requests []Request
}

func (r *recorder) note(q Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
	return r.err
}

func (r *recorder) noted() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func (r *recorder) Add(ctx context.Context, q Request) error {
	if err := r.note(q); err != nil || r.act == nil {
		return err
	}
	return r.act(ctx)
}
func (r *recorder) Del(_ context.Context, q Request) error   { return r.note(q) }
func (r *recorder) Check(_ context.Context, q Request) error { return r.note(q) }
func (r *recorder) GC(_ context.Context, valid []Attachment) error {
	return r.note(Request{Command: GC, Valid: valid})
}

// place returns where a socket may be.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cni") // t.TempDir has the test's name in it: too long
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "cni.sock")
}

// serve runs a Server until the test ends or stop is called.
func serve(t *testing.T, path string, h Handler, changes ...func(*Server)) (stop func()) {
	t.Helper()
	s, err := Listen(path)
	require.NoError(t, err)
	for _, change := range changes {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return stop
}

// ask asks with all the time that a test may need.
func ask(t *testing.T, path string, r Request) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Client(path).Do(ctx, r)
}

// TestEveryCommand hands each request to the agent as it was asked.
func TestEveryCommand(t *testing.T) {
	path, agent := place(t), &recorder{}
	serve(t, path, agent)
	requests := []Request{added(), checked(), removed(), {Command: GC, Valid: []Attachment{{"a", "eth0"}, {"b", "eth0"}}}, longest(added())}
	for _, r := range requests {
		require.NoError(t, ask(t, path, r))
	}
	require.NoError(t, ask(t, path, Request{Command: Status}))
	require.Equal(t, requests, agent.noted())
}

// TestAgentsError comes back as the agent's own, for each command.
func TestAgentsError(t *testing.T) {
	path := place(t)
	serve(t, path, &recorder{err: errors.New("no room\nleft " + strings.Repeat("x", 10_000))})
	for _, r := range []Request{added(), removed(), {Command: GC}} {
		err := ask(t, path, r)
		require.ErrorContains(t, err, "the agent says: no room\nleft xxx")
		require.NotErrorIs(t, err, ErrUnreachable)
		require.Less(t, len(err.Error()), 5000)
	}
}

// TestAddWaits returns when the agent has done its work and not before.
func TestAddWaits(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	path := place(t)
	var inForce bool // ordered by the socket, or the race detector says so
	serve(t, path, &recorder{act: func(context.Context) error {
		close(entered)
		<-release
		inForce = true
		return nil
	}})
	done := make(chan error, 1)
	go func() { done <- ask(t, path, added()) }()
	<-entered
	// Others are served meanwhile.
	require.NoError(t, ask(t, path, Request{Command: Status}))
	select {
	case err := <-done:
		t.Fatalf("returned before the agent: %v", err)
	default:
	}
	close(release)
	require.NoError(t, <-done)
	require.True(t, inForce)
}

// TestPluginGivesUp ends what the agent does for a plugin that does not wait.
func TestPluginGivesUp(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan error, 1)
	path := place(t)
	serve(t, path, &recorder{act: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return errors.New("nobody hears this")
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Client(path).Do(ctx, added()) }()
	<-entered
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled, "not because MaxTimeout was over")
	err := <-done
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, context.Canceled)
}

// TestAddOutlivesTheAgent asks the next agent when the first one goes.
func TestAddOutlivesTheAgent(t *testing.T) {
	path := place(t)
	entered := make(chan struct{})
	stop := serve(t, path, &recorder{act: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return nil // not told: the pod's policies are not in force
	}})
	done := make(chan error, 1)
	go func() { done <- ask(t, path, added()) }()
	<-entered
	stop()
	require.NoFileExists(t, path)
	next := &recorder{}
	serve(t, path, next)
	require.NoError(t, <-done)
	require.Equal(t, []Request{added()}, next.noted())
}

// TestAgentAway is known at once, except for an Add, which waits until its time is over.
func TestAgentAway(t *testing.T) {
	path := place(t)
	for _, r := range []Request{removed(), {Command: GC}, {Command: Status}} {
		require.ErrorIs(t, ask(t, path, r), ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, Client(path).Do(ctx, added()), ErrUnreachable)
	require.Error(t, ctx.Err(), "an Add that did not wait")
}

// TestWaitsForServe keeps a request that comes between Listen and Serve.
func TestWaitsForServe(t *testing.T) {
	path, agent := place(t), &recorder{}
	s, err := Listen(path)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- ask(t, path, removed()) }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, agent) }()
	require.NoError(t, <-done)
	cancel()
	require.NoError(t, <-ended)
}

// hostileLines are no requests, and what the answer says about it.
var hostileLines = map[string]struct{ line, says string }{
	"nothing":        {"\n", "not a message"},
	"no JSON":        {"GET / HTTP/1.1\n", "not a message"},
	"a list":         {"[]\n", "not a message"},
	"null":           {"null\n", "version 0 of the protocol"},
	"half":           {`{"protocol":1,"command":"add"` + "\n", "not a message"},
	"two values":     {`{"protocol":1,"command":"status"} {}` + "\n", "something follows"},
	"two lines":      {`{"protocol":1,"command":"status"}` + "\n{}\n", "more than one line"},
	"unknown field":  {`{"protocol":1,"command":"status","force":true}` + "\n", `"force"`},
	"next version":   {`{"protocol":2,"command":"status"}` + "\n", "different releases"},
	"deep":           {strings.Repeat("[", 20_000) + "\n", "not a message"},
	"too big":        {strings.Repeat(" ", MaxMessage) + "\n", "more than 1048576 bytes"},
	"just fits":      {strings.Repeat(" ", MaxMessage-1) + "\n", "not a message"},
	"wrong type":     {`{"protocol":1,"command":"add","addrs":"10.1.0.7"}` + "\n", "not a message"},
	"no address":     {`{"protocol":1,"command":"add","addrs":["10.1.0.300"]}` + "\n", "10.1.0.300"},
	"prefix":         {`{"protocol":1,"command":"add","addrs":["10.1.0.3/24"]}` + "\n", "10.1.0.3/24"},
	"invalid values": {`{"protocol":1,"command":"add","namespace":"a\u0000"}` + "\n", `namespace: "a\x00"`},
	"never ends":     {`{"protocol":1,`, "i/o timeout"},
}

// TestHostileLines are answered with what is wrong, and never reach the agent.
func TestHostileLines(t *testing.T) {
	path, agent := place(t), &recorder{}
	serve(t, path, agent)
	impatient := place(t)
	serve(t, impatient, agent, func(s *Server) { s.exchange = time.Millisecond })
	say := func(t *testing.T, line string) string {
		to := path
		if !strings.HasSuffix(line, "\n") {
			to = impatient
		}
		conn, err := net.Dial("unix", to)
		require.NoError(t, err)
		defer conn.Close()
		_, _ = conn.Write([]byte(line)) // may be refused before it is read
		text, err := readLine(conn)
		require.NoError(t, err)
		return string(text)
	}
	for name, c := range hostileLines {
		t.Run(name, func(t *testing.T) {
			var a answer
			require.NoError(t, decodeStrictly([]byte(say(t, c.line)), &a))
			require.Contains(t, a.Error, c.says)
		})
	}
	for name, c := range badRequests {
		t.Run(name, func(t *testing.T) {
			line, err := encode(c.request)
			require.NoError(t, err)
			var a answer
			require.NoError(t, decodeStrictly([]byte(say(t, string(line))), &a))
			require.Contains(t, a.Error, "refused: ")
			require.Contains(t, a.Error, strings.SplitN(c.says[0], " ", 2)[0])
		})
	}
	require.Empty(t, agent.noted())
}

// TestClientRefuses does not send what the agent would refuse.
func TestClientRefuses(t *testing.T) {
	err := Client("/nowhere").Do(t.Context(), Request{Command: Add})
	require.ErrorContains(t, err, "namespace: empty")
	require.NotErrorIs(t, err, ErrUnreachable)
	err = Client("/nowhere").Do(t.Context(), Request{Command: GC, Valid: slicesOf(20_000, Attachment{strings.Repeat("f", 64), "eth0"})})
	require.ErrorContains(t, err, "more than 1048576")
}

func slicesOf[T any](n int, value T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = value
	}
	return list
}

// TestAgentTalksNonsense is an error of its own: something is there.
func TestAgentTalksNonsense(t *testing.T) {
	path := place(t)
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = readLine(conn)
		_, _ = conn.Write([]byte("hello\n"))
		_ = conn.Close()
	}()
	err = ask(t, path, added())
	require.ErrorContains(t, err, "the agent's answer")
	require.NotErrorIs(t, err, ErrUnreachable)
}

// TestOnlyRoot refuses everybody else, even if the socket's mode would let him in.
func TestOnlyRoot(t *testing.T) {
	const nobody = 65534
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(bytes.Fields(m)) == 3 && string(bytes.Fields(m)[2]) == "1" {
		return // a user namespace with root only: nobody else can knock
	}
	path, agent := place(t), &recorder{}
	serve(t, path, agent)
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o755))
	require.NoError(t, os.Chmod(path, 0o666))
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with its user
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			done <- e
			return
		}
		done <- ask(t, path, removed())
	}()
	require.ErrorContains(t, <-done, "user 65534 is not root")
	require.Empty(t, agent.noted())
}
