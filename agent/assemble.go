package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// settleFor is how long the connections of a node that tracked none have to be seen
// before they are taken for known.
const settleFor = 10 * time.Second

// newLoop puts together the loop that cfg describes.
func newLoop(ctx context.Context, cfg Config, h *health) (*loop, error) {
	rules := cfg.rules()
	index := policy.NewIndex(cfg.Node)
	l := &loop{
		node: cfg.Node, queue: newQueue(), index: index, health: h, log: cfg.Logger, clock: cfg.Clock,
		ask: make(chan func(*loop)), attachments: newAttachments(cfg.Node),
		quarantine: cfg.Quarantine, fixedCIDRs: cfg.PodCIDRs,
	}
	if cfg.Connections != nil {
		known, err := tracked(ctx, cfg)
		if err != nil {
			return nil, err
		}
		if !known {
			rules.Midstream, l.settled = false, cfg.Clock.After(settleFor)
		}
	}
	if cfg.Quarantine {
		l.blocks = cfg.PodCIDRs
		rules.PodCIDRs = cfg.PodCIDRs
	}
	e := nft.NewEnforcer(rules, cfg.Kernel)
	l.enforcer = e
	links := links{cfg.NetNS}
	if cfg.Connections != nil {
		l.connections = &connections{
			flows: cfg.Connections, index: index, forbid: e.Forbid, keep: cfg.KeepConnections,
			podToNode: cfg.PodToNode, nodeAddrs: links.addrs, log: cfg.Logger, clock: cfg.Clock,
		}
	}
	if cfg.Senders != nil {
		l.senders = &senders{guard: cfg.Senders, devices: links.devices, attachments: l.attachments, health: h, log: cfg.Logger}
	}
	if cfg.Checker != nil {
		l.conditions = &conditions{checker: cfg.Checker, health: h, log: cfg.Logger}
		l.inspect = cfg.Clock.Tick(inspectEvery)
	}
	if cfg.AuditEvery > 0 {
		l.audit = cfg.Clock.Tick(cfg.AuditEvery)
	}
	return l, nil
}

// tracked reports whether the node knows its connections: because it tracks some, or
// because a table of ours, which looks at them, has been in force already. Otherwise
// every packet of a connection that exists would look like one from nowhere.
func tracked(ctx context.Context, cfg Config) (bool, error) {
	tables, err := cfg.Kernel.Tables(ctx)
	if err != nil {
		return false, err
	}
	active, err := cfg.Connections.Active(ctx)
	if err != nil {
		return false, fmt.Errorf("connections of the node: %w", err)
	}
	return active || len(tables) > 0, nil
}

// links reads interfaces and routes of a network namespace, given by a file
// descriptor; 0 is the process's.
type links struct{ netns int }

func (l links) open() (*netlink.Handle, error) {
	if l.netns == 0 {
		return netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	return netlink.NewHandleAt(netns.NsHandle(l.netns), unix.NETLINK_ROUTE)
}

// whole calls dump until the kernel vouches for what it says: while interfaces come and
// go, a list of them may lack some.
func whole[T any](dump func() ([]T, error)) (list []T, err error) {
	const attempts = 10
	for range attempts {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// addrs returns the addresses of all interfaces.
func (l links) addrs() ([]netip.Addr, error) {
	h, err := l.open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}

// devices returns the names of the veths, and for each single address that a route
// leads to, the veth that it leads through.
func (l links) devices() (names map[string]bool, routes map[netip.Addr]string, err error) {
	h, err := l.open()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	list, err := whole(h.LinkList)
	if err != nil {
		return nil, nil, err
	}
	names = map[string]bool{}
	veths := map[int]string{}
	for _, link := range list {
		if link.Type() == "veth" {
			names[link.Attrs().Name] = true
			veths[link.Attrs().Index] = link.Attrs().Name
		}
	}
	found, err := whole(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, err
	}
	routes = map[netip.Addr]string{}
	for _, r := range found {
		if r.Dst == nil || veths[r.LinkIndex] == "" {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		if ones, bits := r.Dst.Mask.Size(); ok && bits > 0 && ones == bits {
			routes[addr.Unmap()] = veths[r.LinkIndex]
		}
	}
	return names, routes, nil
}
