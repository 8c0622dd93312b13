package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const call4, call6 = "bridge-nf-call-iptables", "bridge-nf-call-ip6tables"

// veths returns the node's ends of veths that are ports of cni0.
func veths(t *testing.T, l *lab.Lab) (out []string) {
	t.Helper()
	inNode(t, l, func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if strings.HasPrefix(link.Attrs().Name, "veth") {
				out = append(out, link.Attrs().Name)
			}
		}
		return err
	})
	require.NotEmpty(t, out)
	return out
}

// everyHint calls f with each way in which pods can be known.
func everyHint(t *testing.T, l *lab.Lab, f func(t *testing.T, local Local)) {
	for name, local := range map[string]Local{
		"by CIDR":       {PodCIDRs: l.PodCIDRs(nodeName)},
		"by address":    {Addrs: podAddrs},
		"by device":     {Devices: veths(t, l)},
		"by everything": {PodCIDRs: l.PodCIDRs(nodeName), Addrs: podAddrs, Devices: veths(t, l)},
	} {
		t.Run(name, func(t *testing.T) { f(t, local) })
	}
}

func TestBridgedPods(t *testing.T) {
	l := newLab(t, lab.Bridged)
	cfg := Config{NetNS: l.NetNS(nodeName)}
	everyHint(t, l, func(t *testing.T, local Local) {
		defer setSysctl(t, l, call4, "1")
		defer setSysctl(t, l, call6, "1")
		found, _ := check(t, cfg, local)
		require.Empty(t, found)
		require.True(t, bridged(t, cfg, local))

		setSysctl(t, l, call6, "0")
		found, conditions := check(t, cfg, local)
		require.Equal(t, []string{BridgeNetfilterOff}, found)
		require.False(t, conditions[0].Repaired)
		require.Contains(t, conditions[0].Message, "net.bridge.bridge-nf-call-ip6tables is 0: IPv6 packets")
		require.Contains(t, conditions[0].Message, "bridge cni0")

		setSysctl(t, l, call4, "0")
		found, conditions = check(t, cfg, local)
		require.Equal(t, []string{BridgeNetfilterOff, BridgeNetfilterOff}, found)
		require.Contains(t, conditions[0].Message, "net.bridge.bridge-nf-call-iptables is 0: IPv4 packets")
		require.Equal(t, "0", sysctlOf(t, l, call4), "nothing is written unasked")
	})
}

// TestRepairReachesPackets sends packets between pods of a node whose rules drop
// whatever is forwarded.
func TestRepairReachesPackets(t *testing.T) {
	l := newLab(t, lab.Bridged)
	require.NoError(t, l.AddPod(nodeName, "shop/b", []netip.Addr{netip.MustParseAddr("10.244.1.11"), netip.MustParseAddr("fd00:10:244:1::11")}))
	require.NoError(t, l.Serve(podName, "udp", 53))
	conn, err := nftables.New(nftables.WithNetNSFd(l.NetNS(nodeName)))
	require.NoError(t, err)
	drop := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{
		Name: "drop", Table: conn.AddTable(&nftables.Table{Name: "drop", Family: nftables.TableFamilyINet}), Policy: &drop,
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	require.NoError(t, conn.Flush())
	answered := func(deny bool) (out []bool) {
		var probes []lab.Probe
		for _, a := range podAddrs {
			probes = append(probes, lab.Probe{From: "shop/b", To: a, Protocol: "udp", Port: 53, Deny: deny})
		}
		for _, r := range l.Probe(t.Context(), probes, lab.Timing{}) {
			out = append(out, r.OK)
		}
		return out
	}
	setSysctl(t, l, call4, "0")
	setSysctl(t, l, call6, "0")
	require.Equal(t, []bool{true, true}, answered(false), "bridged packets get past the rules")
	found, _ := check(t, Config{NetNS: l.NetNS(nodeName), Manage: true}, Local{Addrs: podAddrs})
	require.Equal(t, []string{BridgeNetfilterOff, BridgeNetfilterOff}, found)
	require.Equal(t, []bool{false, false}, answered(true))
}

func TestBridgeIsRepaired(t *testing.T) {
	l := newLab(t, lab.Bridged)
	everyHint(t, l, func(t *testing.T, local Local) {
		setSysctl(t, l, call4, "0")
		setSysctl(t, l, call6, "0")
		cfg := Config{NetNS: l.NetNS(nodeName), Manage: true}
		found, conditions := check(t, cfg, local)
		require.Equal(t, []string{BridgeNetfilterOff, BridgeNetfilterOff}, found)
		for _, c := range conditions {
			require.True(t, c.Repaired, c)
			require.Contains(t, c.Message, "The agent has set it to 1")
		}
		require.Equal(t, "1", sysctlOf(t, l, call4))
		require.Equal(t, "1", sysctlOf(t, l, call6))
		found, _ = check(t, cfg, local)
		require.Empty(t, found)
	})
}

// TestOneFamilyOfPods needs no sysctl of a family that pods do not have.
func TestOneFamilyOfPods(t *testing.T) {
	l := newLab(t, lab.Bridged)
	setSysctl(t, l, call4, "0")
	cfg := Config{NetNS: l.NetNS(nodeName)}
	for i, want := range [][]string{{BridgeNetfilterOff}, nil} {
		for _, local := range []Local{
			{PodCIDRs: l.PodCIDRs(nodeName)[i : i+1]},
			{Addrs: podAddrs[i : i+1]},
			{Addrs: podAddrs[i : i+1], Devices: veths(t, l)},
		} {
			found, _ := check(t, cfg, local)
			require.Equal(t, want, found, "%+v", local)
		}
	}
}

// TestBridgeOption leaves the sysctls at 0: a bridge has options of its own.
func TestBridgeOption(t *testing.T) {
	l := newLab(t, lab.Bridged)
	setSysctl(t, l, call4, "0")
	setSysctl(t, l, call6, "0")
	local := Local{PodCIDRs: l.PodCIDRs(nodeName)}
	cfg := Config{NetNS: l.NetNS(nodeName), Manage: true}
	setOption(t, l, "cni0", unix.IFLA_BR_NF_CALL_IPTABLES)
	setOption(t, l, "cni0", unix.IFLA_BR_NF_CALL_IP6TABLES)
	found, _ := check(t, cfg, local)
	require.Empty(t, found)
	require.Equal(t, "0", sysctlOf(t, l, call4))

	addBridge(t, l, "cni1", "10.244.1.2/24")
	found, conditions := check(t, Config{NetNS: l.NetNS(nodeName)}, local)
	require.Equal(t, []string{BridgeNetfilterOff}, found)
	require.Contains(t, conditions[0].Message, "bridge cni1,")
}

func TestRoutedPods(t *testing.T) {
	l := newLab(t, lab.Routed)
	setSysctl(t, l, call4, "0")
	setSysctl(t, l, call6, "0")
	cfg := Config{NetNS: l.NetNS(nodeName), Manage: true}
	everyHint(t, l, func(t *testing.T, local Local) {
		found, _ := check(t, cfg, local)
		require.Empty(t, found)
		require.False(t, bridged(t, cfg, local))
	})
	t.Run("beside a bridge that has no pods", func(t *testing.T) {
		br := addBridge(t, l, "docker0", "172.17.0.1/16", "fd00:17::1/64")
		// The uplink is a bridge as well: addresses that are elsewhere lead
		// to it, but through a gateway.
		inNode(t, l, func() error {
			return netlink.RouteReplace(&netlink.Route{Dst: ipNet("10.9.0.0/16"), LinkIndex: br.Attrs().Index, Gw: netip.MustParseAddr("172.17.0.2").AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
		})
		local := Local{PodCIDRs: l.PodCIDRs(nodeName), Addrs: append([]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.244.1.99")}, podAddrs...), Devices: veths(t, l)}
		found, _ := check(t, cfg, local)
		require.Empty(t, found)
		local.Addrs = append(local.Addrs, netip.MustParseAddr("172.17.0.9"))
		found, _ = check(t, Config{NetNS: l.NetNS(nodeName)}, local)
		require.Equal(t, []string{BridgeNetfilterOff}, found)
	})
	require.Equal(t, "0", sysctlOf(t, l, call4), "nothing is written without need")
}

// fakeProc is a proc of a node without br_netfilter and IPVS.
func fakeProc(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"thread-self/net", "sys/net/ipv4", "sys/net/bridge"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thread-self/net/dev"), nil, 0o644))
	return dir
}

// TestForeignProc is about what no kernel here can be brought to say.
func TestForeignProc(t *testing.T) {
	l := newLab(t, lab.Bridged)
	local := Local{PodCIDRs: l.PodCIDRs(nodeName)}
	for name, c := range map[string]struct {
		change func(proc string) error
		manage bool
		want   []string
		text   string
	}{
		"no module":          {func(string) error { return nil }, true, []string{BridgeNetfilterMissing}, "modprobe br_netfilter"},
		"proc/sys is hidden": {func(proc string) error { return os.RemoveAll(proc + "/sys") }, true, []string{NodeUnreadable, NodeUnreadable}, "privileged"},
		"proc is hidden":     {os.RemoveAll, true, []string{NodeUnreadable}, "thread-self"},
		"unreadable": {func(proc string) error {
			return errors.Join(os.Mkdir(proc+"/sys/net/bridge/"+call4, 0o755), os.WriteFile(proc+"/sys/net/bridge/"+call6, []byte("1\n"), 0o644))
		}, true, []string{NodeUnreadable}, "net.bridge." + call4},
		"write without effect": {func(proc string) error {
			return errors.Join(os.Symlink("/dev/null", proc+"/sys/net/bridge/"+call4), os.WriteFile(proc+"/sys/net/bridge/"+call6, []byte("1\n"), 0o644))
		}, true, []string{BridgeNetfilterOff}, "The agent may not set it (it stays 0)"},
		"write refused": {func(proc string) error {
			return errors.Join(os.Symlink("/proc/sys/kernel/ostype", proc+"/sys/net/bridge/"+call4), os.WriteFile(proc+"/sys/net/bridge/"+call6, []byte("1\n"), 0o644))
		}, true, []string{BridgeNetfilterOff}, "permission denied"},
		"IPVS": {func(proc string) error {
			return errors.Join(os.WriteFile(proc+"/thread-self/net/ip_vs", []byte(ipvsHeader+"UDP  0A60000A:0035 rr\n"), 0o644),
				os.WriteFile(proc+"/sys/net/bridge/"+call4, []byte("1\n"), 0o644), os.WriteFile(proc+"/sys/net/bridge/"+call6, []byte("1\n"), 0o644))
		}, false, []string{IPVSProxy}, "(UDP 0A60000A:0035)"},
		"IPVS is unreadable": {func(proc string) error {
			return errors.Join(os.Symlink("ip_vs", proc+"/thread-self/net/ip_vs"), // leads to itself
				os.WriteFile(proc+"/sys/net/bridge/"+call4, []byte("1\n"), 0o644), os.WriteFile(proc+"/sys/net/bridge/"+call6, []byte("1\n"), 0o644))
		}, false, []string{NodeUnreadable}, "IPVS"},
	} {
		t.Run(name, func(t *testing.T) {
			checker := NewChecker(Config{NetNS: l.NetNS(nodeName), Manage: c.manage})
			checker.proc = fakeProc(t)
			require.NoError(t, c.change(checker.proc))
			report, err := checker.Check(t.Context(), local)
			require.NoError(t, err)
			require.Equal(t, c.want, reasons(report.Conditions))
			require.Contains(t, report.Conditions[0].String(), c.text)
			require.False(t, report.Conditions[0].Repaired)
		})
	}
}

// TestWithoutRights checks a namespace of users that the checker has no power over.
func TestWithoutRights(t *testing.T) {
	l := newLab(t, lab.Routed)
	_, out := child(t, "check", l.NetNS(nodeName), &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
	})
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, NodeUnreadable)
	require.Contains(t, line, "operation not permitted")
	require.Contains(t, line, "privileged")
}

func TestNoNamespace(t *testing.T) {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	found, _ := check(t, Config{NetNS: int(f.Fd())}, Local{})
	require.Equal(t, []string{NodeUnreadable}, found)
}

func TestCheckEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewChecker(Config{}).Check(ctx, Local{})
	require.ErrorIs(t, err, context.Canceled)
}

func BenchmarkCheck(b *testing.B) {
	for _, topology := range []lab.Topology{lab.Routed, lab.Bridged} {
		b.Run(topology.String(), func(b *testing.B) {
			l, err := lab.New(lab.Config{Topology: topology, Nodes: []string{nodeName}})
			require.NoError(b, err)
			defer l.Close()
			local := Local{PodCIDRs: l.PodCIDRs(nodeName)}
			for i := range 110 {
				local.Addrs = append(local.Addrs, netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)}))
				require.NoError(b, l.AddPod(nodeName, fmt.Sprint("shop/", i), local.Addrs[i:]))
			}
			c := NewChecker(Config{NetNS: l.NetNS(nodeName)})
			for b.Loop() {
				report, err := c.Check(b.Context(), local)
				require.NoError(b, err)
				require.Empty(b, report.Conditions)
			}
		})
	}
}
