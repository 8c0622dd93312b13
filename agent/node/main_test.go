package node

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// childVariable makes this program a child of a test: it says which.
const childVariable = "PORTCULLIS_NODE_TEST_CHILD"

// inherited is the number of the first descriptor that a child gets.
const inherited = 3

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "claim":
		_, err := Claim(inherited)
		fmt.Println("claimed:", err)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until killed
		os.Exit(0)
	case "check":
		report, err := NewChecker(Config{NetNS: inherited}).Check(context.Background(), Local{})
		fmt.Println(report.Conditions, err)
		os.Exit(0)
	}
	lab.Main(m, lab.BridgeNetfilter)
}

// child starts this program again with a network namespace as its descriptor.
func child(t *testing.T, what string, netns int, attr *syscall.SysProcAttr) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(netns), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	file := os.NewFile(uintptr(dup), "netns")
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+what)
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	_, err = cmd.StdinPipe() // stays open as long as the child is wanted
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

const (
	nodeName = "node-1"
	podName  = "shop/a"
)

var podAddrs = []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("fd00:10:244:1::10")}

// newLab builds one node with one pod.
func newLab(t *testing.T, topology lab.Topology) *lab.Lab {
	t.Helper()
	lab.Require(t, lab.BridgeNetfilter)
	l, err := lab.New(lab.Config{Topology: topology, Nodes: []string{nodeName}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.AddPod(nodeName, podName, podAddrs))
	return l
}

// inNode runs f inside the node's namespace.
func inNode(t *testing.T, l *lab.Lab, f func() error) {
	t.Helper()
	require.NoError(t, l.In(nodeName, f))
}

func setSysctl(t *testing.T, l *lab.Lab, name, value string) {
	t.Helper()
	inNode(t, l, func() error { return os.WriteFile("/proc/sys/net/bridge/"+name, []byte(value), 0) })
}

func sysctlOf(t *testing.T, l *lab.Lab, name string) (value string) {
	t.Helper()
	inNode(t, l, func() error {
		b, err := os.ReadFile("/proc/sys/net/bridge/" + name)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}

// addBridge makes a bridge with addresses.
func addBridge(t *testing.T, l *lab.Lab, name string, addrs ...string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Bridge{LinkAttrs: attrs}
	inNode(t, l, func() error {
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		for _, a := range addrs {
			if err := addAddr(link, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(link)
	})
	return link
}

func addAddr(link netlink.Link, prefix string) error {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link, a)
}

// check returns the reasons of the conditions, and the conditions.
func check(t *testing.T, cfg Config, local Local) ([]string, []Condition) {
	t.Helper()
	report, err := NewChecker(cfg).Check(t.Context(), local)
	require.NoError(t, err)
	return reasons(report.Conditions), report.Conditions
}

func bridged(t *testing.T, cfg Config, local Local) bool {
	t.Helper()
	report, err := NewChecker(cfg).Check(t.Context(), local)
	require.NoError(t, err)
	return report.Bridged
}

func reasons(conditions []Condition) []string {
	var out []string
	for _, c := range conditions {
		out = append(out, c.Reason)
	}
	return out
}
