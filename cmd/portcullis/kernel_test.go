package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// netNS is a network namespace without a name.
type netNS struct{ file *os.File }

func newNetNS(t *testing.T) netNS {
	t.Helper()
	var ns netNS
	require.NoError(t, onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		ns.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	}))
	t.Cleanup(func() { _ = ns.file.Close() })
	return ns
}

// onThread calls f on a thread that ends with it, so that f may change its namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// nft runs the nft program inside of the namespace and returns what it prints.
func (ns netNS) nft(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var text []byte
	err := onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		c := exec.Command("nft", args...)
		c.Stdin = strings.NewReader(stdin)
		var err error
		text, err = c.CombinedOutput()
		return err
	})
	require.NoError(t, err, "nft %v: %s", args, text)
	return string(text)
}

// table returns what the nft program lists of the one table of ours, as lines that do
// not depend on what the kernel does not keep: handles, and the order of elements.
func (ns netNS) table(t *testing.T) []string {
	t.Helper()
	var list struct {
		Nftables []map[string]any `json:"nftables"`
	}
	require.NoError(t, json.Unmarshal([]byte(ns.nft(t, "", "-j", "list", "table", "inet", renderedTable)), &list))
	var lines []string
	for i, object := range list.Nftables {
		if object["metainfo"] != nil {
			continue
		}
		line, err := json.Marshal(stable(object))
		require.NoError(t, err)
		// Chains, sets and maps come in the order in which they were made; the
		// order of rules matters, and is kept by their number.
		if object["rule"] != nil {
			lines = append(lines, ruleNumber(list.Nftables[:i+1])+string(line))
		} else {
			lines = append(lines, string(line))
		}
	}
	slices.Sort(lines)
	return lines
}

// ruleNumber returns the position of the last rule in its chain.
func ruleNumber(objects []map[string]any) string {
	chain := func(o map[string]any) string {
		if rule, ok := o["rule"].(map[string]any); ok {
			return fmt.Sprint(rule["chain"])
		}
		return ""
	}
	last := chain(objects[len(objects)-1])
	n := 0
	for _, o := range objects {
		if chain(o) == last {
			n++
		}
	}
	return fmt.Sprintf("%s %03d: ", last, n)
}

// stable returns v without handles and with elements sorted.
func stable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = stable(e)
			if list, ok := e.([]any); ok && k == "elem" {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
		delete(v, "handle")
	case []any:
		for i := range v {
			v[i] = stable(v[i])
		}
	}
	return v
}

// trackConnection makes the namespace know a connection, as every node does that has
// run for a while. Where there is none, an agent waits before it takes packets of
// unknown connections for what they are.
func (ns netNS) trackConnection(t *testing.T) {
	t.Helper()
	ns.nft(t, "table inet tracking {\n chain output {\n type filter hook output priority 0;\n ct state new\n }\n}\n", "-f", "-")
	links, err := netlink.NewHandleAt(netns.NsHandle(ns.file.Fd()))
	require.NoError(t, err)
	defer links.Close()
	lo, err := links.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, links.LinkSetUp(lo))
	require.NoError(t, onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("here"))
		return errors.Join(err, c.Close())
	}))
}

// app is an app whose kernel is that of a namespace.
func (ns netNS) app() (a *app, stdout, stderr *output) {
	stdout, stderr = &output{}, &output{}
	a = newApp(stdout, stderr)
	a.netns = int(ns.file.Fd())
	return a, stdout, stderr
}

// copyShop copies the shop into a directory of its own.
func copyShop(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/shop")))
	return dir
}

// TestRenderIsWhatTheAgentLoads has the nft program check and load what render prints,
// and compares it with what the agent puts in the kernel: with Nodes and without, with
// the flags that both commands have, and with those that concern no rule.
func TestRenderIsWhatTheAgentLoads(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.NFTBinary)
	noNodes := copyShop(t)
	require.NoError(t, os.Remove(filepath.Join(noNodes, "nodes.yaml")))
	for _, flags := range [][]string{
		nil,
		{"--deny", "reject"},
		{"--pod-to-node", "allow"},
		{"--quarantine", "off"},
		{"--pod-cidrs", "10.244.0.0/16,10.244.1.7/24,fd00:10:244::/56"},
		{"--quarantine", "off", "--pod-cidrs", "10.244.1.0/24"},
	} {
		for _, at := range []struct{ node, dir string }{{"node-1", "testdata/shop"}, {"node-2", "testdata/shop"}, {"node-9", noNodes}} {
			t.Run(strings.Join(append(flags, at.node), " "), func(t *testing.T) {
				code, rendered, stderr := run(t, append([]string{"render", "-f", at.dir, "--node", at.node}, flags...)...)
				require.Equal(t, exitOK, code, stderr)
				require.Equal(t, loadByHand(t, rendered), loadByAgent(t, append([]string{"--node-name", at.node, "--manifests", at.dir}, flags...)...))
			})
		}
	}
	for _, flags := range [][]string{{"--existing-connections", "keep"}, {"--anti-spoofing", "off"}} {
		t.Run(flags[0], func(t *testing.T) {
			code, rendered, stderr := run(t, "render", "-f", "testdata/shop", "--node", "node-1")
			require.Equal(t, exitOK, code, stderr)
			require.Equal(t, loadByHand(t, rendered), loadByAgent(t, append([]string{"--node-name", "node-1", "--manifests", "testdata/shop"}, flags...)...))
		})
	}
}

// loadByHand has the nft program load a table, and returns what the kernel holds then.
func loadByHand(t *testing.T, rendered string) []string {
	t.Helper()
	ns := newNetNS(t)
	ns.nft(t, rendered, "-c", "-f", "-")
	require.NotContains(t, ns.nft(t, "", "list", "tables"), renderedTable) // -c only checks
	ns.nft(t, rendered, "-f", "-")
	return ns.table(t)
}

// loadByAgent has an agent on a node that tracks connections load its table, and
// returns what the kernel holds then.
func loadByAgent(t *testing.T, flags ...string) []string {
	t.Helper()
	ns := newNetNS(t)
	ns.trackConnection(t)
	a, _, log := ns.app()
	stop := startApp(a, append([]string{"agent"}, flags...)...)
	log.wait(t, `msg="in force"`)
	require.Equal(t, exitOK, stop(), log)
	return ns.table(t)
}

// TestAgentCommand goes through the life of the agent as a command: it follows its
// directory, leaves the rules in force when it is told to stop, and cleanup removes
// them and nothing else.
func TestAgentCommand(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.NFTBinary)
	ns := newNetNS(t)
	ns.nft(t, "table inet other {\n}\ntable ip portcullis-a {\n}\n", "-f", "-")
	dir := copyShop(t)
	a, _, log := ns.app()
	stop := startApp(a, "agent", "--node-name", "node-1", "--manifests", dir, "--log-format", "json")
	log.wait(t, `"msg":"in force"`)
	require.NotEmpty(t, ns.table(t))
	require.NoError(t, os.Remove(filepath.Join(dir, "policies.yaml")))
	revision, err := agent.Revision(dir)
	require.NoError(t, err)
	log.wait(t, `"msg":"in force","revision":"`+revision+`"`)
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		require.True(t, json.Valid([]byte(line)), line)
	}
	require.Equal(t, exitOK, stop())
	require.Contains(t, log.String(), "the rules stay in force")
	require.Contains(t, ns.nft(t, "", "list", "tables"), "table inet portcullis-a")

	a, stdout, stderr := ns.app()
	require.Equal(t, exitOK, a.run(t.Context(), []string{"cleanup"}), stderr)
	require.Empty(t, stdout.String()+stderr.String())
	require.Equal(t, "table inet other\ntable ip portcullis-a\n", ns.nft(t, "", "list", "tables"))
	require.Equal(t, exitOK, a.run(t.Context(), []string{"cleanup"}), stderr) // nothing to remove
}

// TestAgentProcess ends an agent by each signal. The rules stay in force, and the next
// process takes them over, under the other name.
func TestAgentProcess(t *testing.T) {
	lab.Require(t, lab.NFTables, lab.NFTBinary)
	ns := newNetNS(t)
	for i, end := range []struct {
		signal os.Signal
		code   int
	}{{unix.SIGTERM, exitOK}, {unix.SIGINT, exitOK}, {unix.SIGKILL, -1}, {unix.SIGTERM, exitOK}} {
		var log output
		c := exec.Command(os.Args[0], "agent", "--node-name", "node-1", "--manifests", "testdata/shop")
		c.Env = append(os.Environ(), asCommand+"=1")
		c.Stderr = &log
		require.NoError(t, onThread(func() error {
			if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			return c.Start()
		}))
		log.wait(t, `msg="in force"`)
		require.NoError(t, c.Process.Signal(end.signal))
		_ = c.Wait() // the exit code says more
		require.Equal(t, end.code, c.ProcessState.ExitCode(), &log)
		require.Equal(t, "table inet portcullis-"+string("ab"[i%2])+"\n", ns.nft(t, "", "list", "tables"))
	}
}

// TestNoKernel says what could not be opened.
func TestNoKernel(t *testing.T) {
	for _, args := range [][]string{{"cleanup"}, {"agent", "--node-name", "n", "--manifests", "testdata/shop"}} {
		a, _, stderr := testApp()
		a.openKernel = func(nft.Config) (nft.Kernel, error) { return nil, unix.EPERM }
		require.Equal(t, exitFailure, a.run(t.Context(), args))
		require.Contains(t, stderr.String(), "open nftables: operation not permitted")
	}
}
