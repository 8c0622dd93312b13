package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fake is an agent that says what it is told to say.
type fake struct {
	state   State
	audit   Audit
	err     error
	objects func(context.Context, io.Writer) error
}

func (f *fake) State(context.Context) (State, error)           { return f.state, f.err }
func (f *fake) Audit(context.Context) (Audit, error)           { return f.audit, f.err }
func (f *fake) Objects(ctx context.Context, w io.Writer) error { return f.objects(ctx, w) }

// serve runs a Server until the test ends or stop is called.
func serve(t *testing.T, b Backend, f *Feed) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") // t.TempDir has the test's name in it: too long
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "run", "admin.sock")
	s, err := Listen(path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, NewHandler(b, f)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return path, stop
}

func denialTo(port int) Denial {
	return Denial{
		Time: time.Unix(1e9, 5).UTC(), Node: "node-1", Reason: ReasonPolicy, Direction: "ingress", Protocol: "tcp", Port: uint16(port),
		Source:      End{Addr: netip.MustParseAddr("10.0.0.1"), Pod: "shop/web", Labels: map[string]string{"app": "<script>\n\x1b[31m"}},
		Destination: End{Addr: netip.MustParseAddr("fd00::2")}, Policies: []string{"shop/deny"},
		Closest: &Closest{Policy: "shop/deny", Rule: "spec.ingress[0]", Missing: "port tcp/80: it allows tcp/5432"},
	}
}

// TestAnswers asks for everything and gets it as it was given; then the agent ends, and
// its socket with it.
func TestAnswers(t *testing.T) {
	b := &fake{
		state: State{Node: "node-1", Started: time.Unix(1e9, 0).UTC(), Quarantined: []string{"shop/new"}, Rules: 7,
			Policies: []PolicyStatus{{Namespace: "shop", Name: "deny", Generation: 3, InForce: 2, Since: time.Unix(1e9, 7).UTC(), Mode: "audit",
				Problems: []Problem{{Field: "spec", Reason: "wrong"}}}}},
		audit: Audit{Node: "node-1", Packets: 9, Logged: 8, Rows: []AuditRow{{Direction: "egress", Count: 8, Policies: []string{"shop/deny"}}}},
		objects: func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, `{"kind":"List"}`)
			return err
		},
	}
	f := NewFeed()
	path, stop := serve(t, b, f)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
	c := New(path)
	state, err := c.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, b.state, state)
	audit, err := c.Audit(t.Context())
	require.NoError(t, err)
	require.Equal(t, b.audit, audit)
	body, err := c.Objects(t.Context())
	require.NoError(t, err)
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.Equal(t, `{"kind":"List"}`, string(text))
	f.Add(denialTo(80))
	for d, err := range c.Denied(t.Context(), false) {
		require.NoError(t, err)
		require.Equal(t, denialTo(80), d)
	}

	stop()
	require.NoFileExists(t, path)
	_, err = c.State(t.Context())
	require.ErrorIs(t, err, ErrUnreachable)
	for _, err := range c.Denied(t.Context(), true) {
		require.ErrorIs(t, err, ErrUnreachable)
	}
}

// TestErrors says what the agent says, and does not pass half an answer for a whole one.
func TestErrors(t *testing.T) {
	b := &fake{err: errors.New("the agent is busy"), objects: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("x", 1<<20))
		return errors.Join(err, errors.New("no more"))
	}}
	path, _ := serve(t, b, NewFeed())
	_, err := New(path).State(t.Context())
	require.ErrorContains(t, err, "the agent is busy")
	body, err := New(path).Objects(t.Context())
	require.NoError(t, err)
	_, err = io.ReadAll(body)
	require.Error(t, err)
	require.NoError(t, body.Close())

	b.objects = func(context.Context, io.Writer) error { return errors.New("nothing at all") }
	_, err = New(path).Objects(t.Context())
	require.ErrorContains(t, err, "nothing at all")
}

// TestFollow gets what was denied and then what is, until it has enough; the agent's end
// is an error.
func TestFollow(t *testing.T) {
	f := NewFeed()
	path, stop := serve(t, &fake{}, f)
	f.Add(denialTo(0))
	n := 0
	for d, err := range New(path).Denied(t.Context(), true) {
		require.NoError(t, err)
		require.Equal(t, uint16(n), d.Port)
		if n++; n == 100 {
			break
		}
		f.Add(denialTo(n))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	for _, err := range New(path).Denied(ctx, true) {
		require.NoError(t, err)
		if n++; n == 100 {
			cancel()
		}
	}
	require.Equal(t, 100, n)
	n = 0
	for _, err := range New(path).Denied(t.Context(), true) {
		if n++; n == 100 {
			stop()
		}
		if n > 100 {
			require.ErrorContains(t, err, "went away")
		}
	}
	require.Equal(t, 101, n)
}

// TestSlowFollower loses what it has no time for, and is told how many and where.
func TestSlowFollower(t *testing.T) {
	f := NewFeed()
	recent, live, err := f.follow(t.Context())
	require.NoError(t, err)
	require.Empty(t, recent)
	for i := range waiting + 30 {
		f.Add(denialTo(i))
	}
	f.Lose(12)
	next := 0
	for d, err := range live {
		if next == waiting {
			require.Equal(t, Lost(42), err)
			break
		}
		require.NoError(t, err)
		require.Equal(t, uint16(next), d.Port)
		next++
	}
	f.Lose(3)
	f.Add(denialTo(7))
	lost := Lost(0)
	for d, err := range live {
		if !errors.As(err, &lost) {
			require.NoError(t, err)
			require.Equal(t, uint16(7), d.Port)
			break
		}
	}
	require.Equal(t, Lost(3), lost)
	require.Len(t, f.Recent(), Kept)
	require.Equal(t, uint16(7), f.Recent()[Kept-1].Port)
	require.Equal(t, uint16(31), f.Recent()[0].Port)
}

// TestLostOnTheWire tells a follower in its stream.
func TestLostOnTheWire(t *testing.T) {
	f := NewFeed()
	path, _ := serve(t, &fake{}, f)
	f.Add(denialTo(0))
	for _, err := range New(path).Denied(t.Context(), true) {
		if err != nil {
			require.Equal(t, Lost(5), err)
			return
		}
		f.Lose(5)
	}
	t.Fatal("nothing was lost")
}

// TestFollowersAreBounded refuses one too many, and lets others in when one has left.
func TestFollowersAreBounded(t *testing.T) {
	f := NewFeed()
	f.Add(denialTo(0))
	path, _ := serve(t, &fake{}, f)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	for range maxFollowers {
		began := make(chan struct{})
		following.Go(func() {
			for range New(path).Denied(ctx, true) {
				close(began)
			}
		})
		<-began
	}
	refused := 0
	for _, err := range New(path).Denied(t.Context(), true) {
		require.ErrorContains(t, err, "too many")
		refused++
	}
	require.Equal(t, 1, refused)
	cancel()
	following.Wait()
	for { // the server learns of their end a moment later
		for _, err := range New(path).Denied(t.Context(), true) {
			if err == nil {
				return
			}
		}
	}
}

// TestQuestionsAreBounded refuses one too many.
func TestQuestionsAreBounded(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	b := &fake{objects: func(ctx context.Context, w io.Writer) error {
		asked <- struct{}{}
		<-answer
		_, err := fmt.Fprint(w, "{}")
		return err
	}}
	path, _ := serve(t, b, NewFeed())
	var asking sync.WaitGroup
	for range maxQuestions {
		asking.Go(func() {
			body, err := New(path).Objects(context.Background())
			if err == nil {
				_ = body.Close()
			}
		})
		<-asked
	}
	_, err := New(path).State(t.Context())
	require.ErrorContains(t, err, "too many questions")
	close(answer)
	asking.Wait()
	_, err = New(path).State(t.Context())
	require.NoError(t, err)
}

// TestOtherRequests are refused, whatever is sent.
func TestOtherRequests(t *testing.T) {
	path, _ := serve(t, &fake{}, NewFeed())
	for request, want := range map[string]string{
		"POST /debug/state HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd":     "405",
		"GET /debug/../etc HTTP/1.1\r\nHost: x\r\n\r\n":                              "307",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                          "404",
		"nonsense\r\n\r\n":                                                           "400",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<16) + "\r\n\r\n": "431",
	} {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		_, _ = io.WriteString(conn, request) // the server may not read all of it
		answer := make([]byte, 12)
		_, err = io.ReadFull(conn, answer)
		require.NoError(t, err)
		require.Contains(t, string(answer), want, request)
		require.NoError(t, conn.Close())
	}
}

// TestSecondAgent is refused the socket of the first.
func TestSecondAgent(t *testing.T) {
	path, _ := serve(t, &fake{}, NewFeed())
	_, err := Listen(path)
	require.ErrorContains(t, err, "another process listens there")
	_, err = New(path).State(t.Context())
	require.NoError(t, err)
}
