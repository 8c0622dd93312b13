package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

func subnetOf(prefix, gateway string) cni.Subnet {
	return cni.Subnet{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway)}
}

var (
	subnet4 = subnetOf("10.9.1.0/24", "10.9.1.1")
	subnet6 = subnetOf("fd00:9:1::/64", "fd00:9:1::1")
)

// startReporting starts a loop whose node has the gateways of 10.9.1.0/24 and
// fd00:9:1::/64, and some more, and an API server that takes Events.
func startReporting(t *testing.T, file string, prepare ...func(*loop)) (*loopTest, *record.FakeRecorder) {
	l := startLoop(t)
	events := record.NewFakeRecorder(10)
	inLoop(t, l, func(l *loop) bool {
		l.reports = newReports(reportFile{path: file}, l.log)
		l.reports.nodeAddrs = func() (out []netip.Addr, err error) {
			for _, text := range []string{"192.168.77.11", "10.9.1.1", "fd00:9:1::1", "10.8.0.1", "10.7.0.1"} {
				out = append(out, netip.MustParseAddr(text))
			}
			return out, nil
		}
		l.reports.elsewhere = l.index.Elsewhere
		l.warnings = newWarnings(events, "node-1")
		for _, p := range prepare {
			p(l)
		}
		return true
	})
	return l, events
}

// add has the CNI plugin add a pod that nobody knows, with subnets.
func (l *loopTest) add(t *testing.T, subnets ...cni.Subnet) {
	t.Helper()
	inLoop(t, l, func(l *loop) bool { l.offer(subnets); return true })
}

func (l *loopTest) subnets(t *testing.T) []netip.Prefix {
	t.Helper()
	return inLoop(t, l, func(l *loop) []netip.Prefix { return l.reports.blocks() })
}

// sync lets the loop know that all is there, and writes what follows.
func (l *loopTest) sync(t *testing.T) {
	t.Helper()
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
}

// takes expects the blocks to be written.
func (l *loopTest) takes(t *testing.T, blocks ...string) {
	t.Helper()
	c := l.rules.next(t, "takeover")
	require.Equal(t, blocksOf(blocks...), l.rules.blocks)
	c.reply <- nil
}

// TestReportedSubnetsAreTaken holds back what the plugin names, before the pod's ADD is
// answered, and not before it is known what other nodes have.
func TestReportedSubnetsAreTaken(t *testing.T) {
	l, _ := startReporting(t, "")
	l.add(t, subnet4)
	require.Empty(t, l.subnets(t))
	l.queue.put(batch{synced: true})
	l.takes(t, "10.9.1.0/24")

	h := handler{l.ask, nil}
	done := make(chan error, 1)
	r := addRequest("a", "1", "c1", "fd00:9:1::7")
	r.Subnets = []cni.Subnet{subnet4, subnet6}
	l.queue.put(batch{events: []event{{pod("a"), barePod("a", "1")}}})
	l.rules.answer(t, "apply", nil)
	go func() { done <- h.Add(t.Context(), r) }()
	c := l.rules.next(t, "takeover")
	require.Equal(t, blocksOf("10.9.1.0/24", "fd00:9:1::/64"), l.rules.blocks)
	require.Empty(t, done)
	c.reply <- nil
	require.NoError(t, <-done)
	l.add(t, subnet4, subnet6) // and again: nothing to write
	l.rules.none(t)
}

// TestReportedSubnetsThatAreNot ignores what may be more than the node's own, or is no
// network, with one line for each reason.
func TestReportedSubnetsThatAreNot(t *testing.T) {
	for name, tc := range map[string]struct {
		subnet cni.Subnet
		reason string
	}{
		"whole family":   {subnetOf("0.0.0.0/0", "10.9.1.1"), "every address"},
		"whole v6":       {subnetOf("::/0", "fd00:9:1::1"), "every address"},
		"single":         {subnetOf("10.9.1.7/32", "10.9.1.1"), "a single address"},
		"single v6":      {subnetOf("fd00:9:1::7/128", "fe80::1"), "a single address"},
		"outside":        {subnetOf("10.9.2.0/24", "10.9.1.1"), "outside"},
		"link-local":     {subnetOf("fd00:9:1::/64", "fe80::1"), "outside"},
		"another router": {subnetOf("10.9.1.0/24", "10.9.1.254"), "not this node"},
		"shared":         {subnetOf("10.8.0.0/16", "10.8.0.1"), "pod shop/far of another node is in 10.8.0.0/16"},
		"named":          {subnetOf("10.7.0.0/16", "10.7.0.1"), "the Node names"},
	} {
		t.Run(name, func(t *testing.T) {
			l, events := startReporting(t, "", func(l *loop) {
				l.index.(*fakeIndex).foreign = map[netip.Prefix]string{netip.MustParsePrefix("10.8.0.0/16"): "shop/far"}
			})
			if name == "named" {
				l.queue.put(nodeWith("10.9.1.0/24"))
			}
			l.sync(t)
			for range 3 {
				l.add(t, tc.subnet)
			}
			require.Empty(t, l.subnets(t))
			l.log.wait(t, "not in quarantine", tc.reason)
			require.Equal(t, 1, l.log.count("not in quarantine"), l.log)
			require.Empty(t, events.Events)
			l.rules.none(t)
		})
	}
}

// TestTheNodeTakesPrecedence replaces what was reported of a family by what the Node
// names of it.
func TestTheNodeTakesPrecedence(t *testing.T) {
	l, _ := startReporting(t, "")
	l.sync(t)
	l.ask <- func(l *loop) { l.offer([]cni.Subnet{subnet4, subnet6}) }
	l.takes(t, "10.9.1.0/24", "fd00:9:1::/64")
	l.queue.put(nodeWith("10.9.1.128/25"))
	l.takes(t, "10.9.1.128/25", "fd00:9:1::/64")
	l.queue.put(nodeWith()) // says nothing any more: what was named stays
	l.add(t, subnet4)
	require.Equal(t, blocksOf("fd00:9:1::/64"), l.subnets(t))
	l.rules.none(t)
}

// farPod is a pod of another node with an address.
func farPod(addr string, change ...func(*corev1.Pod)) batch {
	p := running("far", "1", addr)
	p.Spec.NodeName = "node-2"
	for _, f := range change {
		f(p)
	}
	return batch{events: []event{{pod("far"), p}}}
}

// TestSharedSubnetIsDropped stops to hold back a subnet when a pod of another node turns
// up in it, tells it, and does not take it again, also as another agent. Pods that have
// no address of their own there are no reason.
func TestSharedSubnetIsDropped(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cni.sock.subnets")
	l, events := startReporting(t, file)
	l.sync(t)
	l.ask <- func(l *loop) { l.offer([]cni.Subnet{subnet4, subnet6}) }
	l.takes(t, "10.9.1.0/24", "fd00:9:1::/64")
	l.queue.put(farPod("10.9.2.7"))
	l.rules.answer(t, "apply", nil)
	for _, b := range []batch{
		farPod("10.9.1.7", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		farPod("10.9.1.7", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		farPod("fd00:9:1::7", func(p *corev1.Pod) { p.Spec.NodeName = "node-1" }),
	} {
		l.queue.put(b)
		eventually(t, "taken", func() bool { return len(l.queue.wake) == 0 })
		require.Len(t, l.subnets(t), 2)
	}
	l.queue.put(farPod("10.9.1.7"))
	l.takes(t, "fd00:9:1::/64")
	l.log.wait(t, "level=WARN", "10.9.1.0/24", "pod shop/far on node node-2", "--pod-cidrs")
	require.Contains(t, <-events.Events, "Warning PodSubnetShared Pods of 10.9.1.0/24 are not held back")
	for range 3 {
		l.add(t, subnet4)
	}
	require.Equal(t, blocksOf("fd00:9:1::/64"), l.subnets(t))
	l.rules.none(t)
	require.Empty(t, events.Events)
	require.NoError(t, l.stop(t))

	next, _ := startReporting(t, file)
	next.add(t, subnet4)
	next.queue.put(batch{synced: true})
	next.takes(t, "fd00:9:1::/64")
	next.log.wait(t, "pods of other nodes have been in 10.9.1.0/24")

	// The last one of all: nothing is held back any more.
	next.queue.put(farPod("fd00:9:1::7"))
	c := next.rules.next(t, "takeover")
	require.Empty(t, next.rules.blocks)
	c.reply <- nil
}

// TestReportsOutliveTheAgent checks what an earlier agent has taken as if it had been
// reported now.
func TestReportsOutliveTheAgent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cni.sock.subnets")
	l, _ := startReporting(t, file)
	l.sync(t)
	require.NoFileExists(t, file)
	l.ask <- func(l *loop) { l.offer([]cni.Subnet{subnet4, subnet6}) }
	l.takes(t, "10.9.1.0/24", "fd00:9:1::/64")
	require.NoError(t, l.stop(t))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1)

	next, _ := startReporting(t, file)
	require.Empty(t, next.subnets(t))
	next.queue.put(batch{synced: true})
	next.takes(t, "10.9.1.0/24", "fd00:9:1::/64")
	require.NoError(t, next.stop(t))

	// Meanwhile the Node has a block, and the gateway is gone.
	moved, _ := startReporting(t, file, func(l *loop) {
		l.reports.nodeAddrs = func() ([]netip.Addr, error) { return nil, nil }
	})
	moved.queue.put(nodeWith("10.9.1.0/25"))
	moved.queue.put(batch{synced: true})
	moved.takes(t, "10.9.1.0/25")
	require.NoError(t, moved.stop(t))
	kept, err := (&reportFile{path: file}).read()
	require.NoError(t, err)
	require.Empty(t, kept.Subnets)
}

// TestReportsWait keeps what cannot be looked at for the next time.
func TestReportsWait(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cni.sock.subnets")
	l, _ := startReporting(t, file)
	l.sync(t)
	l.ask <- func(l *loop) { l.offer([]cni.Subnet{subnet4}) }
	l.takes(t, "10.9.1.0/24")
	require.NoError(t, l.stop(t))

	next, _ := startReporting(t, file)
	addrs := inLoop(t, next, func(l *loop) func() ([]netip.Addr, error) {
		was := l.reports.nodeAddrs
		l.reports.nodeAddrs = func() ([]netip.Addr, error) { return nil, errors.New("netlink is out of order") }
		return was
	})
	next.sync(t)
	next.log.wait(t, "level=ERROR", "netlink is out of order")
	inLoop(t, next, func(l *loop) bool { l.reports.nodeAddrs = addrs; return true })
	next.ask <- func(l *loop) { l.offer(nil) }
	next.takes(t, "10.9.1.0/24")
}

// TestBadReportFile is none, with a warning, and is replaced by the next report.
func TestBadReportFile(t *testing.T) {
	const good = `{"version":1,"subnets":[{"prefix":"10.9.1.0/24","gateway":"10.9.1.1"}]}`
	_, err := parseReport([]byte(good))
	require.NoError(t, err)
	for name, text := range map[string]string{
		"empty":         "",
		"half":          good[:20],
		"two":           good + good,
		"a list":        "[]",
		"next version":  strings.Replace(good, "1", "2", 1),
		"unknown field": strings.Replace(good, `"version"`, `"all":true,"version"`, 1),
		"no block":      strings.Replace(good, "10.9.1.0/24", "10.9.1.0/33", 1),
		"not masked":    strings.Replace(good, "10.9.1.0/24", "10.9.1.7/24", 1),
		"empty block":   strings.Replace(good, "10.9.1.0/24", "", 1),
		"no gateway":    strings.Replace(good, `,"gateway":"10.9.1.1"`, "", 1),
		"shared":        `{"version":1,"shared":["10.9.1.7/24"]}`,
		"many":          `{"version":1,"shared":["10.9.1.0/24"` + strings.Repeat(`,"10.9.1.0/24"`, 2*mostSubnets) + `]}`,
		"big":           strings.Replace(good, `{`, `{`+strings.Repeat(" ", maxReport), 1),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cni.sock.subnets")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			l, _ := startReporting(t, file)
			l.log.wait(t, "level=WARN", file)
			l.sync(t)
			require.Empty(t, l.subnets(t))
			l.ask <- func(l *loop) { l.offer([]cni.Subnet{subnet4}) }
			l.takes(t, "10.9.1.0/24")
			require.NoError(t, l.stop(t))
			after, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, good, string(after))
		})
	}
}
