package soak

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// The amounts. `make soak` passes larger ones.
var (
	starts   = flag.Int("soak.starts", 24, "`number` of pods to start, in each test that starts some")
	restarts = flag.Int("soak.restarts", 12, "how `often` to restart the agent")
	tampers  = flag.Int("soak.tampers", 1, "how `often` to do each thing to the rules that nobody should")
	churnFor = flag.Duration("soak.churn", 3*time.Second, "for how long policies change")
	table    = flag.Bool("soak.table", false, "print the results as a table in the end")
	seed     = flag.Uint64("soak.seed", 1, "where random choices begin")
)

// patience is when a test gives up on something that never happens.
const patience = 30 * time.Second

var needs = []lab.Need{lab.NFTables, lab.NFTBinary, lab.BridgeNetfilter}

var topologies = []lab.Topology{lab.Routed, lab.Bridged}

// TestMain runs the tests, or, started by one of them, is an agent.
func TestMain(m *testing.M) {
	if os.Getenv(nodeVariable) != "" {
		os.Exit(agentProcess())
	}
	lab.Main(withLoopback{m}, needs...)
}

// withLoopback runs the tests after it has made sure that they can reach a health
// endpoint: in a network namespace of our own the loopback interface is down.
type withLoopback struct{ *testing.M }

func (m withLoopback) Run() int {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil && !errors.Is(err, os.ErrPermission) {
		fmt.Fprintln(os.Stderr, "bring up lo:", err)
		return 1
	}
	remove, err := ownTemp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "temporary files:", err)
		return 1
	}
	code := m.M.Run()
	remove()
	if *table {
		printResults(os.Stdout, code != 0)
	}
	return code
}

// ownTemp puts all temporary files below a directory that remove removes, and that is
// also removed where a signal ends the tests. Namespaces, and with them everything in
// the kernel, vanish with this process, and agents' processes end by themselves.
func ownTemp() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		remove()
		os.Exit(130)
	}()
	return remove, os.Setenv("TMPDIR", dir)
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !yes(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
