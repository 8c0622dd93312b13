package lab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

type pod struct {
	*namespace
	name  string
	node  *node
	addrs []netip.Addr
	veth  netlink.Link // the node's end
}

// AddPod makes a pod and attaches it to a node. The name is "namespace/name".
// Addresses may lie outside the node's pod prefixes; they are then routed to
// the node one by one. The pod answers from the moment AddPod returns.
func (l *Lab) AddPod(node, name string, addrs []netip.Addr) error {
	ns, err := l.newNamespace(endSysctls())
	if err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &pod{namespace: ns, name: name}
	err = l.newEndpoint(name)
	if err == nil {
		err = l.attach(p, node, addrs)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pod %s: %w", name, err), ns.close())
	}
	l.pods[name] = p
	l.endpoints[name] = ns
	return nil
}

// AddHostPod gives a hostNetwork pod a name: the endpoint is the node itself.
func (l *Lab) AddHostPod(node, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.nodeNamed(node)
	if err == nil {
		err = l.newEndpoint(name)
	}
	if err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	l.endpoints[name] = n.namespace
	return nil
}

func (l *Lab) newEndpoint(name string) error {
	if ns, pod, ok := strings.Cut(name, "/"); !ok || ns == "" || pod == "" {
		return errors.New("want a name like namespace/name")
	}
	if l.endpoints[name] != nil {
		return os.ErrExist
	}
	return nil
}

func (l *Lab) nodeNamed(name string) (*node, error) {
	i := slices.IndexFunc(l.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		return nil, fmt.Errorf("node %q: %w", name, os.ErrNotExist)
	}
	return l.nodes[i], nil
}

// RemovePod stops the pod's servers and removes its link, routes and namespace.
// The servers of a hostNetwork pod are its node's and keep running.
func (l *Lab) RemovePod(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pods[name]
	switch {
	case p != nil:
		delete(l.pods, name)
		delete(l.endpoints, name)
		return errors.Join(l.detach(p), p.close())
	case strings.Contains(name, "/") && l.endpoints[name] != nil:
		delete(l.endpoints, name)
		return nil
	}
	return fmt.Errorf("pod %s: %w", name, os.ErrNotExist)
}

// MovePod attaches an existing pod to a node (maybe the one it is on) with
// these addresses instead of those it has. Its servers keep running.
func (l *Lab) MovePod(name, node string, addrs []netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pods[name]
	if p == nil {
		return fmt.Errorf("pod %s: %w", name, os.ErrNotExist)
	}
	if err := l.detach(p); err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	if err := l.attach(p, node, addrs); err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	return nil
}

// attach links a pod to a node and gives it its addresses. On an error nothing
// is left behind.
func (l *Lab) attach(p *pod, nodeName string, addrs []netip.Addr) error {
	n, err := l.nodeNamed(nodeName)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := l.checkAddr(a); err != nil {
			return err
		}
		if owner, taken := l.addrs[a]; taken {
			return fmt.Errorf("address %v belongs to pod %s", a, owner)
		}
	}
	l.made++
	eth0, veth, err := connect(p.namespace, podMAC(addrs), n.namespace, fmt.Sprintf("veth%d", l.made), n.bridge)
	if err != nil {
		return err
	}
	p.node, p.veth, p.addrs = n, veth, slices.Clone(addrs)
	for _, a := range addrs {
		l.addrs[a] = p.name
	}
	if err := l.configure(p, eth0); err != nil {
		return errors.Join(err, l.detach(p))
	}
	return nil
}

// podMAC makes the MAC address follow from the first address, so that neighbour
// entries stay right when a pod inherits the address of another. Nil: any.
func podMAC(addrs []netip.Addr) net.HardwareAddr {
	if len(addrs) == 0 {
		return nil
	}
	sum := sha256.Sum256(addrs[0].AsSlice())
	return append(net.HardwareAddr{0x02}, sum[:5]...) // 02: locally administered, unicast
}

func (l *Lab) configure(p *pod, eth0 netlink.Link) error {
	if err := l.addAddr(p.namespace, eth0, linkLocal(0x10000+l.made)); err != nil {
		return err
	}
	if l.cfg.Topology == Routed {
		if err := l.addAddr(p.node.namespace, p.veth, netip.PrefixFrom(gateway6, 64)); err != nil {
			return err
		}
	} else if err := awaitUp(p.node.namespace, p.node.bridge); err != nil {
		return err
	}
	for _, a := range p.addrs {
		if err := l.addPodAddr(p, eth0, a); err != nil {
			return err
		}
	}
	// After the addresses: the kernel takes no route through a link without
	// an address of the family.
	gw4, gw6 := gateway4, gateway6
	if l.cfg.Topology == Bridged {
		gw4 = firstOf(podCIDR4(p.node.index)).Addr()
		gw6 = firstOf(podCIDR6(p.node.index)).Addr()
	}
	return errors.Join(
		l.addRoute(p.namespace, route{to: all4, via: gw4, dev: eth0}),
		l.addRoute(p.namespace, route{to: all6, via: gw6, dev: eth0}),
	)
}

// addPodAddr gives a pod one address and makes it reachable: on a bridge the
// prefix does it, otherwise a host route on the node; an address of no prefix of
// the node's needs routes everywhere.
func (l *Lab) addPodAddr(p *pod, eth0 netlink.Link, a netip.Addr) error {
	own := slices.IndexFunc(l.podCIDRs(p.node.index), func(c netip.Prefix) bool { return c.Contains(a) })
	bits := a.BitLen()
	if own >= 0 && l.cfg.Topology == Bridged {
		bits = l.podCIDRs(p.node.index)[own].Bits()
	}
	if err := l.addAddr(p.namespace, eth0, netip.PrefixFrom(a, bits)); err != nil {
		return err
	}
	for _, r := range l.podRoutes(p, a) {
		if err := l.addRoute(r.at, r.route); err != nil {
			return err
		}
	}
	if l.cfg.Topology == Bridged {
		return p.announce(eth0, a)
	}
	return nil
}

type placedRoute struct {
	at *namespace
	route
	withLink bool // the kernel removes it with the pod's link
}

// podRoutes lists the routes that lead to one address of a pod.
func (l *Lab) podRoutes(p *pod, a netip.Addr) []placedRoute {
	host := netip.PrefixFrom(a, a.BitLen())
	via, viaLocal := nodeAddr4(p.node.index), firstOf(podCIDR4(p.node.index)).Addr()
	if a.Is6() {
		via, viaLocal = nodeAddr6(p.node.index), firstOf(podCIDR6(p.node.index)).Addr()
	}
	own := slices.ContainsFunc(l.podCIDRs(p.node.index), func(c netip.Prefix) bool { return c.Contains(a) })
	var out []placedRoute
	switch {
	case l.cfg.Topology == Routed:
		out = append(out, placedRoute{p.node.namespace, route{to: host, src: via, dev: p.veth}, true})
	case !own:
		out = append(out, placedRoute{p.node.namespace, route{to: host, src: viaLocal, dev: p.node.bridge}, false})
	}
	if own {
		return out
	}
	for _, n := range l.nodes {
		if n != p.node {
			out = append(out, placedRoute{n.namespace, route{to: host, via: via, dev: n.uplink}, false})
		}
	}
	if br, err := l.fabric.links.LinkByName("br0"); err == nil {
		out = append(out, placedRoute{l.fabric, route{to: host, via: via, dev: br}, false})
	}
	return out
}

// detach undoes attach.
func (l *Lab) detach(p *pod) error {
	var errs []error
	for _, a := range p.addrs {
		delete(l.addrs, a)
		for _, r := range l.podRoutes(p, a) {
			if r.withLink {
				continue
			}
			if err := r.at.links.RouteDel(r.netlink()); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("delete route %v: %w", r.to, err))
			}
		}
	}
	p.addrs = nil
	if err := p.node.deleteLink(p.veth); err != nil {
		errs = append(errs, fmt.Errorf("delete link %s: %w", p.veth.Attrs().Name, err))
	}
	return errors.Join(errs...)
}

// deleteLink deletes a link and returns when it is gone for everybody. The
// kernel's answer comes tens of milliseconds later, after an RCU grace period,
// so somebody else waits for that, on a socket of its own.
func (n *namespace) deleteLink(link netlink.Link) error {
	links, err := netlink.NewHandleAt(netns.NsHandle(n.fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	failed := make(chan error, 1)
	go func() {
		defer links.Close()
		failed <- links.LinkDel(link)
	}()
	for {
		_, err := n.links.LinkByIndex(link.Attrs().Index)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(50 * time.Microsecond):
		}
	}
}
