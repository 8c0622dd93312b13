package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"
)

// heard passes on what a Listener is told.
type heard chan string

func (h heard) Line(a Agent, text []byte) { h <- a.Node + " line " + string(text) }
func (h heard) Lost(a Agent, err error)   { h <- fmt.Sprint(a.Node, " lost ", err) }
func (h heard) Back(a Agent)              { h <- a.Node + " back" }
func (h heard) Gone(a Agent)              { h <- a.Node + " gone" }
func (h heard) is(t *testing.T, w string) { t.Helper(); require.Equal(t, w, h.next(t)) }
func (h heard) next(t *testing.T) (s string) {
	t.Helper()
	select {
	case s = <-h:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was said")
	}
	return s
}

// attempt is a command that runs in a pod, until it is told to end.
type attempt struct {
	pod string
	out io.Writer
	end chan error
}

type attempts chan attempt

func (r attempts) Run(ctx context.Context, pod string, _ []string, _ io.Reader, stdout, _ io.Writer) error {
	a := attempt{pod, stdout, make(chan error)}
	select {
	case r <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestKeep comes back to agents with pauses, to their new pods, and to those of new nodes.
func TestKeep(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	run, told := attempts(make(chan attempt)), heard(make(chan string))
	lists := make(chan []Agent)
	k := &Keeper{Runner: run, To: told, Clock: clock, Find: func(ctx context.Context) ([]Agent, error) {
		select {
		case list := <-lists:
			if list == nil {
				return nil, errors.New("no API server")
			}
			return list, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx, []Agent{{Node: "n1", Pod: "a"}}) }()
	// list lets time go by until the agents are listed.
	list := func(agents ...Agent) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			select {
			case lists <- agents:
				return
			case <-time.After(time.Millisecond):
				clock.Step(time.Second)
			}
		}
		t.Fatal("it does not list them")
	}
	one := <-run
	fmt.Fprintln(one.out, "x")
	told.is(t, "n1 line x")
	from := clock.Now()
	one.end <- errors.New("killed")
	told.is(t, "n1 lost killed")
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		list()
		one = <-run
		require.GreaterOrEqual(t, clock.Since(from), pause*time.Second)
		from = clock.Now()
		one.end <- errors.New("refused") // said once
	}
	list(Agent{Node: "n1", Pod: "b"}, Agent{Node: "n2", Why: "none"})
	told.is(t, "n2 lost none")
	one = <-run
	require.Equal(t, "b", one.pod)
	fmt.Fprintln(one.out, "y")
	told.is(t, "n1 back")
	told.is(t, "n1 line y")
	list(Agent{Node: "n1", Pod: "b"}, Agent{Node: "n2", Pod: "c"})
	two := <-run
	require.Equal(t, "c", two.pod)
	fmt.Fprintln(two.out, "z")
	told.is(t, "n2 back")
	told.is(t, "n2 line z")
	two.end <- nil
	told.is(t, "n2 lost <nil>")
	cancel()
	require.NoError(t, <-done)
}
