package testcases

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const ipvsPods = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: shop, labels: {app: client}}, spec: {nodeName: node-1, containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: near, namespace: shop, labels: {app: web}}, spec: {nodeName: node-1, containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: shop, labels: {app: web}}, spec: {nodeName: node-2, containers: [{name: c}]}}
`

// ipvsServices are the addresses of two Services with one pod each.
var ipvsServices = map[string][]netip.Addr{
	"shop/near": {netip.MustParseAddr("10.96.0.21"), netip.MustParseAddr("fd00:96::21")},
	"shop/far":  {netip.MustParseAddr("10.96.0.22"), netip.MustParseAddr("fd00:96::22")},
}

const ipvsPort, ipvsTarget = 80, 8080

// TestIPVS shows what becomes of policy on a node whose kube-proxy uses IPVS, with
// the real kernel and no help: a Service's packets go through input, where their
// destination is still the Service, and leave through output, where they look like
// the node's own. It holds what README.md says about such nodes, where the agent finds
// IPVS and is not ready; it is not how things should be.
func TestIPVS(t *testing.T) {
	for _, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			lab.Require(t, needs...)
			family := ipvsFamily(t)
			s := newSite(t, topo, tableConfig)
			c := &cluster{}
			s.become(c, ipvsPods)
			require.NotContains(t, s.conditions(), node.IPVSProxy)
			for pod, addrs := range ipvsServices {
				require.NoError(t, s.serve(pod, protoPort{"tcp", ipvsTarget}))
				s.ipvs(family, addrs, s.pods[pod].addrs())
			}
			require.Contains(t, s.conditions(), node.IPVSProxy, "the agent must not call such a node ready")
			for _, stage := range ipvsStages {
				if stage.policy != "" {
					s.become(c, "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: "+stage.policy+"}")
				}
				s.compare(stage.about, stage.want)
			}
		})
	}
}

// ipvsWant says what passes, to a pod and to its Service.
type ipvsWant struct{ pod, service bool }

var ipvsStages = []struct {
	about, policy string
	want          map[string]ipvsWant
}{
	{
		about: "no policy",
		want:  map[string]ipvsWant{"shop/near": {true, true}, "shop/far": {true, true}},
	},
	{
		// The node of the client lets the packets of its own through to near. The
		// other node sees the client's address, and does as it is told.
		about:  "web takes nothing",
		policy: `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}`,
		want:   map[string]ipvsWant{"shop/near": {false, true}, "shop/far": {false, false}},
	},
	{
		// Nobody asks which pod is behind the Service.
		about:  "the client may send to web",
		policy: `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]}`,
		want:   map[string]ipvsWant{"shop/near": {true, false}, "shop/far": {true, false}},
	},
	{
		about:  "the client may send to Services",
		policy: `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: "fd00:96::/64"}}]}]}`,
		want:   map[string]ipvsWant{"shop/near": {false, true}, "shop/far": {false, true}},
	},
}

// conditions returns the reasons for which an agent would not call node-1 ready.
func (s *site) conditions() (reasons []string) {
	s.t.Helper()
	report, err := node.NewChecker(node.Config{NetNS: s.NetNS("node-1")}).Check(s.t.Context(), node.Local{})
	require.NoError(s.t, err)
	for _, c := range report.Conditions {
		reasons = append(reasons, c.Reason)
	}
	return reasons
}

// become sets objects in the cluster and has them enforced.
func (s *site) become(c *cluster, objects string) {
	s.t.Helper()
	o, err := manifest.Decode("ipvs", []byte(objects))
	require.NoError(s.t, err)
	events, err := c.apply(step{Applies: o})
	require.NoError(s.t, err)
	s.populate(c)
	s.enforce(events)
}

// compare connects the client to all pods and Services at once.
func (s *site) compare(about string, want map[string]ipvsWant) {
	s.t.Helper()
	var probes []lab.Probe
	add := func(to netip.Addr, port uint16, want bool) {
		probes = append(probes, lab.Probe{From: "shop/client", To: to, Protocol: "tcp", Port: port, Deny: !want})
	}
	for pod, w := range want {
		for i, service := range ipvsServices[pod] {
			add(s.pods[pod].addrs()[i], ipvsTarget, w.pod)
			add(service, ipvsPort, w.service)
		}
	}
	for i, r := range s.Probe(s.t.Context(), probes, timing) {
		assert.Equal(s.t, !probes[i].Deny, r.OK, "%s: %v: %v", about, probes[i], r.Err)
	}
}

// ipvsFamily finds IPVS in the kernel. The test is skipped where there is none,
// unless PORTCULLIS_IPVS=required.
func ipvsFamily(t *testing.T) uint16 {
	t.Helper()
	family, err := netlink.GenlFamilyGet("IPVS")
	if err != nil && os.Getenv("PORTCULLIS_IPVS") != "required" {
		t.Skip("this kernel has no IPVS: ", err)
	}
	require.NoError(t, err, "IPVS is required here")
	return family.ID
}

// Generic netlink of IPVS, linux/ip_vs.h.
const (
	ipvsNewService = 1
	ipvsNewDest    = 5
	ipvsFlush      = 17

	ipvsAttrService = 1
	ipvsAttrDest    = 2

	ipvsServiceFamily    = 1
	ipvsServiceProtocol  = 2
	ipvsServiceAddr      = 3
	ipvsServicePort      = 4
	ipvsServiceScheduler = 6
	ipvsServiceFlags     = 7
	ipvsServiceTimeout   = 8
	ipvsServiceNetmask   = 9

	ipvsDestAddr   = 1
	ipvsDestPort   = 2
	ipvsDestMethod = 3 // 0: NAT
	ipvsDestWeight = 4
	ipvsDestUpper  = 5
	ipvsDestLower  = 6
	ipvsDestFamily = 11
)

// ipvs makes a Service on node-1 as kube-proxy does: its addresses on an interface
// of the node, and a virtual server that translates to the pod.
func (s *site) ipvs(family uint16, service, pod []netip.Addr) {
	s.t.Helper()
	const device = "kube-ipvs0"
	s.t.Cleanup(func() {
		assert.NoError(s.t, s.In("node-1", func() error {
			if link, err := netlink.LinkByName(device); err == nil {
				_ = netlink.LinkDel(link)
			}
			return ipvsRequest(family, ipvsFlush)
		}))
	})
	require.NoError(s.t, s.In("node-1", func() error {
		dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: device}}
		if err := netlink.LinkAdd(dummy); err != nil && !os.IsExist(err) {
			return fmt.Errorf("add %s: %w", device, err)
		}
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/vs/conntrack", []byte("1"), 0); err != nil {
			return err
		}
		for i, a := range service {
			address := &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice()), Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrAdd(link, address); err != nil {
				return fmt.Errorf("add %v to %s: %w", a, device, err)
			}
			if err := ipvsRequest(family, ipvsNewService, ipvsServer(a, true)); err != nil {
				return fmt.Errorf("virtual server %v: %w", a, err)
			}
			if err := ipvsRequest(family, ipvsNewDest, ipvsServer(a, false), ipvsDest(pod[i])); err != nil {
				return fmt.Errorf("virtual server %v to %v: %w", a, pod[i], err)
			}
		}
		return nil
	}))
}

// ipvsRequest runs in the network namespace of the thread.
func ipvsRequest(family uint16, command uint8, attributes ...*nl.RtAttr) error {
	request := nl.NewNetlinkRequest(int(family), unix.NLM_F_ACK)
	request.AddData(&nl.Genlmsg{Command: command, Version: 1})
	for _, a := range attributes {
		request.AddData(a)
	}
	_, err := request.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

// ipvsServer names a virtual server, or describes it in full.
func ipvsServer(a netip.Addr, full bool) *nl.RtAttr {
	domain, netmask := unix.AF_INET, uint32(0xffffffff)
	if a.Is6() {
		domain, netmask = unix.AF_INET6, 128
	}
	attr := nl.NewRtAttr(ipvsAttrService|unix.NLA_F_NESTED, nil)
	attr.AddRtAttr(ipvsServiceFamily, nl.Uint16Attr(uint16(domain)))
	attr.AddRtAttr(ipvsServiceProtocol, nl.Uint16Attr(unix.IPPROTO_TCP))
	attr.AddRtAttr(ipvsServiceAddr, ipvsAddr(a))
	attr.AddRtAttr(ipvsServicePort, binary.BigEndian.AppendUint16(nil, ipvsPort))
	if full {
		attr.AddRtAttr(ipvsServiceScheduler, nl.ZeroTerminated("rr"))
		attr.AddRtAttr(ipvsServiceFlags, make([]byte, 8)) // flags and their mask
		attr.AddRtAttr(ipvsServiceTimeout, nl.Uint32Attr(0))
		attr.AddRtAttr(ipvsServiceNetmask, nl.Uint32Attr(netmask))
	}
	return attr
}

func ipvsDest(a netip.Addr) *nl.RtAttr {
	domain := unix.AF_INET
	if a.Is6() {
		domain = unix.AF_INET6
	}
	attr := nl.NewRtAttr(ipvsAttrDest|unix.NLA_F_NESTED, nil)
	attr.AddRtAttr(ipvsDestFamily, nl.Uint16Attr(uint16(domain)))
	attr.AddRtAttr(ipvsDestAddr, ipvsAddr(a))
	attr.AddRtAttr(ipvsDestPort, binary.BigEndian.AppendUint16(nil, ipvsTarget))
	attr.AddRtAttr(ipvsDestMethod, nl.Uint32Attr(0))
	attr.AddRtAttr(ipvsDestWeight, nl.Uint32Attr(1))
	attr.AddRtAttr(ipvsDestUpper, nl.Uint32Attr(0))
	attr.AddRtAttr(ipvsDestLower, nl.Uint32Attr(0))
	return attr
}

// ipvsAddr is an address in the sixteen bytes that IPVS has for both families.
func ipvsAddr(a netip.Addr) []byte {
	return append(a.AsSlice(), make([]byte, 16)...)[:16]
}
