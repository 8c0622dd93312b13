package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	fabricName = "fabric"
	cniBridge  = "cni0"
)

var (
	fabricNet4   = netip.MustParsePrefix("192.168.77.1/24")
	fabricNet6   = netip.MustParsePrefix("fd00:77::1/64")
	uplinkNet4   = netip.MustParsePrefix("192.168.78.1/24")
	uplinkNet6   = netip.MustParsePrefix("fd00:78::1/64")
	outsideAddr4 = netip.MustParseAddr("192.168.78.10")
	outsideAddr6 = netip.MustParseAddr("fd00:78::10")

	// The gateways of routed pods. The IPv4 one is on the node's loopback: it
	// answers ARP on every veth from there, and at once, where proxy ARP would
	// wait for up to its proxy_delay.
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")

	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// Addresses of node number i, counted from 0.

func nodeAddr4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, 77, byte(11 + i)})
}

func nodeAddr6(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", 11+i))
}

func podCIDR4(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(1 + i), 0}), 24)
}

func podCIDR6(i int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", 1+i))
}

type node struct {
	*namespace
	name   string
	index  int
	uplink netlink.Link // eth0
	bridge netlink.Link // cni0; nil when routed
}

// build makes everything but the pods.
func (l *Lab) build() error {
	var err error
	if l.fabric, err = l.newNamespace(routerSysctls()); err != nil {
		return err
	}
	l.endpoints[fabricName] = l.fabric
	br, err := l.fabric.addBridge("br0", 0x77)
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{fabricNet4, fabricNet6, linkLocal(0x7700)} {
		if err := l.addAddr(l.fabric, br, p); err != nil {
			return err
		}
	}
	if err := l.buildOutside(); err != nil {
		return fmt.Errorf("outside host: %w", err)
	}
	for i, name := range l.cfg.Nodes {
		if err := l.buildNode(i, name, br); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	return awaitUp(l.fabric, br)
}

func (l *Lab) buildOutside() error {
	var err error
	if l.outside, err = l.newNamespace(endSysctls()); err != nil {
		return err
	}
	l.endpoints[Outside] = l.outside
	eth0, up, err := connect(l.outside, nil, l.fabric, "uplink", nil)
	if err != nil {
		return err
	}
	return errors.Join(
		l.addAddr(l.fabric, up, uplinkNet4),
		l.addAddr(l.fabric, up, uplinkNet6),
		l.addAddr(l.fabric, up, linkLocal(0x7801)),
		l.addAddr(l.outside, eth0, netip.PrefixFrom(outsideAddr4, uplinkNet4.Bits())),
		l.addAddr(l.outside, eth0, netip.PrefixFrom(outsideAddr6, uplinkNet6.Bits())),
		l.addAddr(l.outside, eth0, linkLocal(0x7810)),
		l.addRoute(l.outside, route{to: all4, via: uplinkNet4.Addr(), dev: eth0}),
		l.addRoute(l.outside, route{to: all6, via: uplinkNet6.Addr(), dev: eth0}),
		l.addRoute(l.fabric, route{to: all4, via: outsideAddr4, dev: up}),
		l.addRoute(l.fabric, route{to: all6, via: outsideAddr6, dev: up}),
	)
}

func (l *Lab) buildNode(i int, name string, br netlink.Link) error {
	ns, err := l.newNamespace(nodeSysctls(l.cfg.Topology))
	if err != nil {
		return err
	}
	l.endpoints[name] = ns
	n := &node{namespace: ns, name: name, index: i}
	if n.uplink, _, err = connect(ns, nil, l.fabric, fmt.Sprintf("node%d", i+1), br); err != nil {
		return err
	}
	err = errors.Join(
		l.addAddr(ns, n.uplink, netip.PrefixFrom(nodeAddr4(i), fabricNet4.Bits())),
		l.addAddr(ns, n.uplink, netip.PrefixFrom(nodeAddr6(i), fabricNet6.Bits())),
		l.addAddr(ns, n.uplink, linkLocal(0x7700+11+i)),
		l.addRoute(ns, route{to: all4, via: fabricNet4.Addr(), dev: n.uplink}),
		l.addRoute(ns, route{to: all6, via: fabricNet6.Addr(), dev: n.uplink}),
	)
	if err != nil {
		return err
	}
	for j := range l.cfg.Nodes {
		if j != i {
			err = errors.Join(err,
				l.addRoute(ns, route{to: podCIDR4(j), via: nodeAddr4(j), dev: n.uplink}),
				l.addRoute(ns, route{to: podCIDR6(j), via: nodeAddr6(j), dev: n.uplink}))
		}
	}
	fabricDev, e := l.fabric.links.LinkByName("br0")
	if err = errors.Join(err, e); err != nil {
		return err
	}
	err = errors.Join(
		l.addRoute(l.fabric, route{to: podCIDR4(i), via: nodeAddr4(i), dev: fabricDev}),
		l.addRoute(l.fabric, route{to: podCIDR6(i), via: nodeAddr6(i), dev: fabricDev}))
	if err != nil {
		return err
	}
	l.nodes = append(l.nodes, n)
	return l.buildPodNetwork(n)
}

// buildPodNetwork makes what the pods of a node share.
func (l *Lab) buildPodNetwork(n *node) error {
	if l.cfg.Topology == Routed {
		lo, err := n.links.LinkByName("lo")
		if err != nil {
			return err
		}
		// Addresses of no pod are unreachable instead of bouncing between
		// node and fabric.
		return errors.Join(
			l.addAddr(n.namespace, lo, netip.PrefixFrom(gateway4, 32)),
			l.addRoute(n.namespace, route{to: podCIDR4(n.index), kind: unix.RTN_UNREACHABLE}),
			l.addRoute(n.namespace, route{to: podCIDR6(n.index), kind: unix.RTN_UNREACHABLE}),
		)
	}
	var err error
	if n.bridge, err = n.addBridge(cniBridge, byte(1+n.index)); err != nil {
		return err
	}
	return errors.Join(
		l.addAddr(n.namespace, n.bridge, firstOf(podCIDR4(n.index))),
		l.addAddr(n.namespace, n.bridge, firstOf(podCIDR6(n.index))),
		l.addAddr(n.namespace, n.bridge, linkLocal(0x2440+n.index)),
	)
}

// firstOf returns the first host address of a prefix, with its length.
func firstOf(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Next(), p.Bits())
}

func linkLocal(id int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fe80::%x:%x/64", 1+id>>16, id&0xffff))
}

// AddOutside gives the outside host further addresses. Everything that is
// neither a node nor a pod is routed there, so any unicast address will do.
func (l *Lab) AddOutside(addrs ...netip.Addr) error {
	for _, a := range addrs {
		if fabricNet4.Masked().Contains(a) || fabricNet6.Masked().Contains(a) {
			return fmt.Errorf("outside address %v lies in the nodes' own network", a)
		}
	}
	return l.addLoopback(l.outside, addrs)
}

// AddNodeAddr gives a node a further address that only it and its own pods can
// reach, as a node-local DNS cache has.
func (l *Lab) AddNodeAddr(node string, addrs ...netip.Addr) error {
	if !slices.Contains(l.cfg.Nodes, node) {
		return fmt.Errorf("no node %q", node)
	}
	ns, err := l.endpoint(node)
	if err != nil {
		return err
	}
	return l.addLoopback(ns, addrs)
}

func (l *Lab) addLoopback(ns *namespace, addrs []netip.Addr) error {
	lo, err := ns.links.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := l.checkAddr(a); err != nil {
			return err
		}
		if err := l.addAddr(ns, lo, netip.PrefixFrom(a, a.BitLen())); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// addBridge makes a bridge that is up. Its MAC address is fixed: otherwise it
// would follow its ports and leave stale neighbour entries behind.
func (n *namespace) addBridge(name string, id byte) (netlink.Link, error) {
	snooping := false // no querier here: IPv6 neighbour discovery must be flooded
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0xbb, id}
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := n.links.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := n.links.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("bring up %s: %w", name, err)
	}
	return br, nil
}

// connect makes a veth pair between two namespaces, its second end optionally
// as a port of a bridge, and waits until both ends can send. The first end gets
// the MAC address, if there is one.
func connect(a *namespace, mac net.HardwareAddr, b *namespace, bName string, bridge netlink.Link) (aLink, bLink netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "eth0", mac
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(b.fd())}
	if err = a.links.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("add veth for %s: %w", bName, err)
	}
	if bLink, err = b.links.LinkByName(bName); err != nil {
		return nil, nil, fmt.Errorf("find veth %s: %w", bName, err)
	}
	if bridge != nil {
		if err = b.links.LinkSetMaster(bLink, bridge); err != nil {
			return nil, nil, fmt.Errorf("attach %s to bridge: %w", bName, err)
		}
		if err = b.links.LinkSetHairpin(bLink, true); err != nil {
			return nil, nil, fmt.Errorf("hairpin on %s: %w", bName, err)
		}
	}
	if err = errors.Join(b.links.LinkSetUp(bLink), a.links.LinkSetUp(veth)); err != nil {
		return nil, nil, fmt.Errorf("bring up %s: %w", bName, err)
	}
	return veth, bLink, errors.Join(awaitUp(a, veth), awaitUp(b, bLink))
}

// addAddr adds an address of a family that the Lab has, usable at once.
func (l *Lab) addAddr(n *namespace, link netlink.Link, p netip.Prefix) error {
	if !l.hasFamily(p.Addr()) {
		return nil
	}
	addr := &netlink.Addr{IPNet: ipNet(p), Scope: unix.RT_SCOPE_UNIVERSE}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if p.Addr().IsLinkLocalUnicast() {
		addr.Scope = unix.RT_SCOPE_LINK
	}
	if err := n.links.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %v to %s: %w", p, link.Attrs().Name, err)
	}
	switch {
	case p.Addr().Is4():
	case p.Addr().IsLinkLocalUnicast():
		return awaitSolicited(n, link, p.Addr())
	default:
		if err := awaitLocal(n, p.Addr()); err != nil {
			return err
		}
	}
	return n.serveNewAddr(p.Addr())
}

type route struct {
	to   netip.Prefix
	via  netip.Addr   // optional gateway, taken to be on the link
	src  netip.Addr   // optional preferred source
	dev  netlink.Link // nil for the kinds that need none
	kind int          // RTN_*; 0 means unicast
}

func (r route) netlink() *netlink.Route {
	nr := &netlink.Route{Dst: ipNet(r.to), Type: r.kind}
	if r.via.IsValid() {
		nr.Gw = r.via.AsSlice()
		nr.Flags = int(netlink.FLAG_ONLINK)
	} else if r.dev != nil {
		nr.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		nr.Src = r.src.AsSlice()
	}
	if r.dev != nil {
		nr.LinkIndex = r.dev.Attrs().Index
	}
	return nr
}

// addRoute adds or replaces a route of a family that the Lab has.
func (l *Lab) addRoute(n *namespace, r route) error {
	if !l.hasFamily(r.to.Addr()) {
		return nil
	}
	if err := n.links.RouteReplace(r.netlink()); err != nil {
		return fmt.Errorf("add route %v via %v: %w", r.to, r.via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
