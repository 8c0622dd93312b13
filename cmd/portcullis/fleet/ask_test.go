package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/util/exec"
)

// pods runs a function for each pod.
type pods map[string]func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error

func (p pods) Run(ctx context.Context, pod string, _ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	return p[pod](ctx, stdin, stdout, stderr)
}

func says(text string, err error) func(context.Context, io.Reader, io.Writer, io.Writer) error {
	return func(_ context.Context, _ io.Reader, stdout, stderr io.Writer) error {
		fmt.Fprint(stdout, text)
		if err != nil {
			fmt.Fprintln(stderr, "because")
		}
		return err
	}
}

// TestAsk keeps the order of the agents, whatever becomes of each.
func TestAsk(t *testing.T) {
	p := pods{
		"a": says("one", nil),
		"b": says("two", exec.CodeExitError{Err: errors.New("exit 1"), Code: 1}),
		"c": says("", errors.New("refused")),
		"d": func(ctx context.Context, _ io.Reader, _, _ io.Writer) error { <-ctx.Done(); return ctx.Err() },
		"f": says(strings.Repeat("x", maxAnswer+1), nil),
	}
	agents := []Agent{{Node: "n1", Pod: "a"}, {Node: "n2", Pod: "b"}, {Node: "n3", Pod: "c"}, {Node: "n4", Pod: "d"}, {Node: "n5", Why: "none"}, {Node: "n6", Pod: "f"}}
	var told []int
	out := Ask(t.Context(), p, agents, []string{"x"}, 100*time.Millisecond, func(done, total int) { told = append(told, done, total) })
	require.Equal(t, []int{1, 6, 2, 6, 3, 6, 4, 6, 5, 6, 6, 6}, told)
	var got []string
	for i, a := range out {
		require.Equal(t, agents[i], a.Agent)
		got = append(got, fmt.Sprintf("%.8s code %d %s %v", a.Out, a.Code, a.Said, a.Err))
	}
	require.Equal(t, []string{
		"one code 0  <nil>",
		"two code 1 because <nil>",
		" code 0 because refused",
		" code 0  no answer within 100ms",
		" code 0  none",
		"xxxxxxxx code 0  the answer is longer than 67108864 bytes",
	}, got)
}

// TestAskManyAtOnce asks only so many agents at once.
func TestAskManyAtOnce(t *testing.T) {
	p, started, end := pods{}, make(chan bool, 100), make(chan bool)
	var agents []Agent
	for i := range 50 {
		pod := fmt.Sprint("pod-", i)
		agents = append(agents, Agent{Node: pod, Pod: pod})
		p[pod] = func(context.Context, io.Reader, io.Writer, io.Writer) error { started <- true; <-end; return nil }
	}
	done := make(chan []Answer)
	go func() { done <- Ask(t.Context(), p, agents, nil, time.Minute, nil) }()
	for range parallel {
		<-started
	}
	require.Empty(t, started)
	close(end)
	require.Len(t, <-done, 50)
}

// TestFollow goes on with the others when one ends, for whatever reason.
func TestFollow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	others := make(chan bool)
	ends := make(chan error, 1)
	p := pods{
		"a": says("1\n2\n", nil),
		"b": says("3\n", exec.CodeExitError{Err: errors.New("exit 2"), Code: 2}),
		"c": says(strings.Repeat("x", maxLine+1), nil),
		"d": func(_ context.Context, stdin io.Reader, stdout, _ io.Writer) error {
			<-others
			fmt.Fprintln(stdout, "4")
			_, err := io.Copy(io.Discard, stdin) // until nobody listens any more
			ends <- err
			return nil
		},
	}
	agents := []Agent{{Node: "n1", Pod: "a"}, {Node: "n2", Pod: "b"}, {Node: "n3", Pod: "c"}, {Node: "n4", Pod: "d"}, {Node: "n5", Why: "none"}}
	var lines, ended []string
	Follow(ctx, p, agents, nil, func(a Agent, text []byte) {
		lines = append(lines, a.Node+" "+string(text))
		if string(text) == "4" {
			cancel()
		}
	}, func(a Agent, err error) {
		ended = append(ended, fmt.Sprint(a.Node, " ", err))
		if len(ended) == 4 {
			close(others)
		}
	})
	require.NoError(t, <-ends)
	slices.Sort(lines)
	require.Equal(t, []string{"n1 1", "n1 2", "n2 3", "n4 4"}, lines)
	slices.Sort(ended)
	require.Equal(t, []string{
		"n1 <nil>", "n2 because (exit code 2)", "n3 read its answer: bufio.Scanner: token too long", "n4 <nil>", "n5 none",
	}, ended)
}
