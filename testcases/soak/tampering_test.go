package soak

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// neighbours are tables like those of kube-proxy, firewalld and Docker.
const neighbours = `
table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.7.7 . tcp . 80 : goto service-web }
	}
	chain service-web {
		ip saddr 10.244.1.11 meta mark set meta mark or 0x4000
		meta l4proto tcp dnat to 10.244.1.11:7001
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain filter-forward {
		type filter hook forward priority -110; policy accept
		ct state new ip daddr 10.96.0.0/16 reject
	}
}
table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority 10; policy drop
		ct state { established, related } accept
		iifname "lo" accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
	}
	chain filter_FORWARD {
		type filter hook forward priority 10; policy accept
		ct status dnat accept
		udp dport 9999 drop
	}
}
table ip filter {
	chain DOCKER-USER {
		return
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop
		jump DOCKER-USER
		ip saddr 10.244.0.0/16 accept
		ip daddr 10.244.0.0/16 accept
	}
}
`

var neighbourTables = []string{"ip kube-proxy", "inet firewalld", "ip filter"}

// misdeed is what nobody should do.
type misdeed struct {
	name, commands string // of nft, about our table, whose name is %[1]s
	closes         bool   // it has allowed packets dropped
}

var misdeeds = []misdeed{
	{name: "ruleset flushed", commands: flushRuleset},
	{name: "table deleted", commands: "delete table inet %[1]s"},
	{name: "table emptied of rules", commands: "flush table inet %[1]s"},
	{name: "base chain emptied", commands: "flush chain inet %[1]s ingress"},
	{name: "base chain deleted", commands: "flush chain inet %[1]s ingress; delete chain inet %[1]s ingress"},
	{name: "rule inserted", commands: "insert rule inet %[1]s ingress accept"},
	{name: "IPv4 pod let go", commands: "delete element inet %[1]s in4 { 10.244.1.11 }; add element inet %[1]s in4 { 10.244.1.11 : accept }; delete element inet %[1]s isoin4 { 10.244.1.11 }"},
	{name: "IPv6 pod let go", commands: "delete element inet %[1]s in6 { fd00:10:244:1::11 }; add element inet %[1]s in6 { fd00:10:244:1::11 : accept }; delete element inet %[1]s isoin6 { fd00:10:244:1::11 }"},
	{name: "address let out of quarantine", commands: "add element inet %[1]s eg4 { 10.244.1.77 : accept }; add element inet %[1]s in4 { 10.244.1.77 : accept }"},
	{name: "pod put into quarantine", commands: "delete element inet %[1]s in4 { 10.244.1.11 }", closes: true},
	{name: "rule that drops all", commands: "insert rule inet %[1]s egress drop", closes: true},
}

// interfaceMisdeeds are about our rules for the interfaces of pods.
var interfaceMisdeeds = []misdeed{
	{name: "table deleted", commands: "delete table netdev portcullis"},
	{name: "table emptied of rules", commands: "flush table netdev portcullis"},
}

// TestTamperingInterfaces does the like to the rules that keep pods from sending with
// addresses that are not theirs.
func TestTamperingInterfaces(t *testing.T) {
	lab.Require(t, needs...)
	s := newTampered(t)
	s.start("node-1")
	var took []time.Duration
	for range *tampers {
		for _, m := range interfaceMisdeeds {
			took = append(took, s.tamper(m))
		}
	}
	slices.Sort(took)
	s.result("other programs change the rules of interfaces", "%d interferences of %d kinds, in force again after %s (median), %s (longest)",
		len(took), len(interfaceMisdeeds), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// newTampered makes a site with a client, a server and other programs' tables.
func newTampered(t *testing.T) *site {
	t.Helper()
	s := newSite(t, lab.Routed)
	s.api.makeNamespace(t, namespaceOf("shop", nil))
	for i, name := range []string{"client", "server"} {
		addrs := []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)}), s.addresses("node-1", 0x10+i)[1]}
		require.NoError(t, s.AddPod("node-1", "shop/"+name, addrs))
		s.api.makePod(t, podOf("shop", name, name, "node-1", map[string]string{"app": name}, addrs...))
	}
	s.api.putPolicy(t, policyOf(t, "shop", "p", `{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{protocol: UDP, port: 7001}, {port: 7001}]}]}`))
	require.NoError(t, s.Serve("shop/server", "tcp", 7001))
	s.nft("node-1", neighbours)
	// The node tracks connections before the agent comes, as those of a cluster do.
	// Otherwise the agent waits a while before it resets what it does not know.
	s.reachable("shop/client", "10.96.7.7")
	return s
}

// TestTampering does to the rules what other programs do by mistake, and measures how
// long it takes until they are what they should be.
func TestTampering(t *testing.T) {
	lab.Require(t, needs...)
	s := newTampered(t)
	a := s.start("node-1")
	var closed, open floods
	for _, addr := range []string{"10.244.1.11", "fd00:10:244:1::11"} {
		open = append(open, s.flood("shop/client", "shop/server", netip.AddrPortFrom(netip.MustParseAddr(addr), 7001), true))
		closed = append(closed, s.flood("shop/client", "shop/server", netip.AddrPortFrom(netip.MustParseAddr(addr), 7002), false))
	}
	intruder := s.intrude("shop/client", "shop/server", netip.MustParseAddrPort("10.244.1.11:7003"))
	before := s.listNeighbours()
	var took []time.Duration
	var allowed, dropped int64
	for _, closes := range []bool{false, true} {
		for range *tampers {
			for _, m := range misdeeds {
				if m.closes != closes {
					continue
				}
				took = append(took, s.tamper(m))
				intruder.gone(t, m.name)
				if m.commands == flushRuleset { // whoever does that has to bring them back
					s.nft("node-1", neighbours)
				}
				require.Equal(t, before, s.listNeighbours(), "after: %s", m.name)
			}
		}
		if !closes {
			// A packet that is in our table while somebody takes it away finds its
			// sets empty, and is dropped. These are few.
			for _, f := range open {
				wrong, _ := f.stop() // its error says no more
				allowed, dropped = allowed+f.sent.Load(), dropped+wrong
			}
			require.Less(t, 100*dropped, allowed)
		}
	}
	intruder.stop()
	s.reachable("shop/client", "10.96.7.7") // through DNAT
	var passed, sent int64
	for _, f := range closed { // they pass while nothing forbids it, and that is all
		_, _ = f.stop()
		passed, sent = passed+f.received.Load(), sent+f.sent.Load()
	}
	repairs := len(a.log.find("another program has changed"))
	require.GreaterOrEqual(t, repairs, len(took), "%s", a.log)
	slices.Sort(took)
	s.result("other programs change the rules", "%d interferences of %d kinds, %d repairs counted, in force again after %s (median), %s (longest); %d of %d forbidden packets passed meanwhile, %d forbidden TCP connections opened meanwhile, all ended, %d of %d allowed packets dropped, other tables unchanged",
		len(took), len(misdeeds), repairs, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), passed, sent, intruder.opened.Load(), dropped, allowed)
}

const flushRuleset = "flush ruleset"

// tamper does something nobody should and waits until the rules are what they should
// be. It returns how long that took.
func (s *site) tamper(m misdeed) time.Duration {
	s.t.Helper()
	x := s.api.index(s.t, "node-1")
	require.Empty(s.t, s.differences("node-1", x))
	tables, err := s.look["node-1"].Tables(s.t.Context())
	require.NoError(s.t, err)
	require.Len(s.t, tables, 1)
	interfaces := s.listInterfaces()
	require.Contains(s.t, interfaces, "hook ingress")
	s.nft("node-1", strings.ReplaceAll(m.commands, "%[1]s", tables[0]))
	begin := time.Now()
	eventually(s.t, m.name+": the rules are back", func() bool { return len(s.differences("node-1", x)) == 0 })
	d := time.Since(begin)
	eventually(s.t, m.name+": the rules of the interfaces are back", func() bool { return s.listInterfaces() == interfaces })
	s.t.Logf("%s: in force again after %s, interfaces' within %s", m.name, d.Round(time.Millisecond/10), time.Since(begin).Round(time.Millisecond/10))
	return time.Since(begin)
}

// nft runs commands of the nft program on a node.
func (s *site) nft(node, commands string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "commands.nft")
	require.NoError(s.t, os.WriteFile(file, []byte(commands), 0o600))
	var out []byte
	require.NoError(s.t, s.In(node, func() (err error) {
		if out, err = exec.Command("nft", "-s", "-f", file).CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s\n%s", err, out, commands)
		}
		return nil
	}))
	return string(out)
}

// listInterfaces returns our rules for the interfaces of the pods on node-1, sorted:
// they stand in the order in which they were made. It is empty if there are none.
func (s *site) listInterfaces() string {
	s.t.Helper()
	lines := strings.Split(s.nft("node-1", "list ruleset netdev"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// listNeighbours returns the other programs' tables on node-1.
func (s *site) listNeighbours() (out string) {
	s.t.Helper()
	for _, table := range neighbourTables {
		out += s.nft("node-1", "list table "+table)
	}
	return out
}

// reachable sees to it that a pod reaches port 80 of addresses.
func (s *site) reachable(from string, addrs ...string) {
	s.t.Helper()
	var probes []lab.Probe
	for _, a := range addrs {
		probes = append(probes, lab.Probe{From: from, To: netip.MustParseAddr(a), Protocol: "tcp", Port: 80})
	}
	for i, r := range s.Probe(s.t.Context(), probes, lab.Timing{Allow: patience}) {
		require.NoError(s.t, r.Err, probes[i])
	}
}
