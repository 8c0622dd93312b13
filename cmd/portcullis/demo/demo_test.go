package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// roleVariable makes the test binary another program, for tests that need one.
const roleVariable = "PORTCULLIS_DEMO_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "liar":
		pretend(os.Args)
	case "dying":
		fmt.Fprintln(os.Stderr, "no rules for you")
		os.Exit(3)
	case "demo":
		command := []string{os.Getenv("PORTCULLIS_DEMO_TEST_AGENT"), "agent"}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := Run(ctx, Options{IPFamily: "4", Keep: true, Agent: command}, os.Stdout, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main(m, lab.NFTables, lab.BridgeNetfilter)
}

// pretend is an agent that says that everything is in force and does nothing.
func pretend(args []string) {
	dir := args[slices.Index(args, "--manifests")+1]
	said := ""
	for range time.Tick(2 * time.Millisecond) {
		revision, err := agent.Revision(dir)
		if err != nil || revision == said {
			continue
		}
		said = revision
		_ = json.NewEncoder(os.Stderr).Encode(map[string]any{"time": time.Now(), "msg": "in force", "revision": revision})
	}
}

// buildAgent builds the real agent.
func buildAgent(t *testing.T) []string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "portcullis")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/portcullis-netpol/portcullis/cmd/portcullis").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return []string{bin, "agent"}
}

func TestRealAgent(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.BridgeNetfilter)
	command := buildAgent(t)
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		for _, family := range []string{"4", "6", "dual"} {
			t.Run(fmt.Sprintf("story,%v,%s", topology, family), func(t *testing.T) {
				t.Parallel()
				var out, errOut bytes.Buffer
				err := Run(t.Context(), Options{Topology: topology, IPFamily: family, Agent: command}, &out, &errOut)
				if testing.Verbose() || err != nil {
					t.Logf("%s\n%s", &out, &errOut)
				}
				require.NoError(t, err)
				require.Empty(t, errOut.String())
			})
		}
	}
	t.Run("own manifests", func(t *testing.T) {
		var out, errOut bytes.Buffer
		err := Run(t.Context(), Options{Manifests: ownDir(t, ownManifests), JSON: true, Agent: command}, &out, &errOut)
		require.NoError(t, err, "%s\n%s", &out, &errOut)
		steps := decodeSteps(t, out.Bytes())
		require.Len(t, steps, 2)
		require.True(t, steps[0].OK && steps[1].OK)
	})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run("nothing is left after "+sig.String(), func(t *testing.T) { nothingIsLeft(t, command, sig) })
	}
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Whoever reads the output may stop reading it.
func TestOutputThatIsClosedEndsTheStory(t *testing.T) {
	lab.Require(t, lab.NFTables)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv(roleVariable, "liar")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, r.Close())
	var errOut bytes.Buffer
	require.ErrorIs(t, Run(t.Context(), Options{IPFamily: "4", Agent: []string{os.Args[0]}}, w, &errOut), syscall.EPIPE)
	requireEmpty(t, tmp)
}

func decodeSteps(t *testing.T, data []byte) []jsonStep {
	t.Helper()
	var steps []jsonStep
	d := json.NewDecoder(bytes.NewReader(data))
	for d.More() {
		var s jsonStep
		require.NoError(t, d.Decode(&s))
		steps = append(steps, s)
	}
	return steps
}

func TestMismatchIsFoundAndNamed(t *testing.T) {
	lab.Require(t, lab.NFTables)
	t.Setenv(roleVariable, "liar")
	var out, errOut bytes.Buffer
	err := Run(t.Context(), Options{IPFamily: "4", JSON: true, Agent: []string{os.Args[0]}}, &out, &errOut)
	var mismatch *MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Contains(t, mismatch.Step, "Default deny")
	require.Contains(t, mismatch.Cells, "frontend -> users:8080 (IPv4): should be blocked (egress: "+
		"shop/default-deny allows nothing; ingress: shop/default-deny allows nothing), but was reached")
	steps := decodeSteps(t, out.Bytes())
	require.Len(t, steps, 2, "it stops at the first mismatch")
	require.True(t, steps[0].OK)
	require.False(t, steps[1].OK)
	for _, c := range steps[1].Connections {
		require.True(t, c.Observed, "%v", c)
	}
	require.Empty(t, steps[1].FirstPackets)
	require.Len(t, steps[1].InForce, 2)
}

func TestAgentThatEndsIsAnError(t *testing.T) {
	lab.Require(t, lab.NFTables)
	t.Setenv(roleVariable, "dying")
	var out, errOut bytes.Buffer
	err := Run(t.Context(), Options{IPFamily: "4", Agent: []string{os.Args[0]}}, &out, &errOut)
	require.ErrorContains(t, err, "the agent has ended (exit status 3)")
	require.ErrorContains(t, err, "no rules for you")
	err = Run(t.Context(), Options{IPFamily: "4", Agent: []string{"/does/not/exist"}}, &out, &errOut)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestCancelEndsTheStory(t *testing.T) {
	lab.Require(t, lab.NFTables)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv(roleVariable, "liar")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	require.ErrorIs(t, Run(ctx, Options{IPFamily: "4", Agent: []string{os.Args[0]}}, &out, &errOut), context.Canceled)
	requireEmpty(t, tmp)
}

// Agents and temporary files go with the demo: in order when it is told to end, and
// the agents even when it is killed.
func nothingIsLeft(t *testing.T, command []string, sig syscall.Signal) {
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=demo", "PORTCULLIS_DEMO_TEST_AGENT="+command[0], "TMPDIR="+tmp)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
	}
	agents := children(t, cmd.Process.Pid)
	require.Len(t, agents, 2, "%s", &errOut)
	require.NoError(t, cmd.Process.Signal(sig))
	for lines.Scan() {
	}
	err = cmd.Wait()
	require.Eventually(t, func() bool { return !alive(agents) }, 10*time.Second, 5*time.Millisecond)
	if sig == syscall.SIGTERM {
		require.NoError(t, err, "%s", &errOut)
		requireEmpty(t, tmp)
	}
}

// children lists the processes that a process has started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var out []int
	for _, path := range stats {
		data, _ := os.ReadFile(path) // some end meanwhile
		_, rest, _ := strings.Cut(string(data), ") ")
		var state string
		var parent, child int
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == pid {
			_, err := fmt.Sscan(string(data), &child)
			require.NoError(t, err)
			out = append(out, child)
		}
	}
	return out
}

// alive tells whether one of the processes still runs; a zombie does not.
func alive(pids []int) bool {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(data), ") Z ") {
			return true
		}
	}
	return false
}
