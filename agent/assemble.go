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
		node: cfg.Node, queue: newQueue(cfg.Clock), index: index, health: h, log: cfg.Logger, clock: cfg.Clock,
		ask: make(chan func(*loop)), visits: make(chan func(*loop)), attachments: newAttachments(cfg.Node),
		quarantine: cfg.Quarantine, fixedCIDRs: cfg.PodCIDRs,
	}
	l.meters = newMeters(cfg.Clock, cfg.Version, l.queue, h)
	// Before anything is written: a table that we made a moment ago says nothing.
	tables, err := inForce(ctx, cfg.Kernel)
	if err != nil {
		return nil, err
	}
	if cfg.Connections != nil {
		known, err := tracked(ctx, cfg, tables)
		if err != nil {
			return nil, err
		}
		l.untracked, rules.Midstream = !known, known
	}
	links := links{cfg.NetNS}
	if cfg.Quarantine {
		l.blocks = cfg.PodCIDRs
		rules.PodCIDRs = cfg.PodCIDRs
		l.holdBackEarly(cfg, tables, links)
	}
	e := nft.NewEnforcer(rules, cfg.Kernel)
	l.enforcer, l.counted = e, e
	if cfg.Connections != nil {
		l.connections = &connections{
			flows: cfg.Connections, index: index, forbid: e.Forbid, keep: cfg.KeepConnections,
			podToNode: cfg.PodToNode, nodeAddrs: links.addrs, log: cfg.Logger, clock: cfg.Clock, meters: l.meters,
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

// holdBackEarly gives the loop what of the quarantine is not in its rules: what to write
// before the objects are known, and the blocks that the CNI plugin reports.
func (l *loop) holdBackEarly(cfg Config, tables []string, links links) {
	if len(tables) == 0 {
		// Without pods there is nobody whose connections from nowhere would be
		// reset. That nobody looks at them tells the next agent, should this one
		// end too soon, that they are not known: see tracked.
		rules := cfg.rules()
		rules.Midstream, rules.Logger = false, nil
		l.advance = &advance{
			enforcer: nft.NewEnforcer(rules, cfg.Kernel), health: l.health, log: cfg.Logger, clock: cfg.Clock, backoff: retries(),
		}
	}
	if cfg.Socket != "" && len(cfg.PodCIDRs) == 0 {
		l.reports = newReports(reportFile{path: cfg.Socket + reportSuffix}, cfg.Logger)
		l.reports.nodeAddrs, l.reports.elsewhere = links.addrs, l.index.Elsewhere
	}
}

// inForce returns those of our tables that judge packets. One that an agent was killed
// over before it was complete does not.
func inForce(ctx context.Context, k nft.Kernel) (names []string, err error) {
	tables, err := k.Tables(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range tables {
		base, err := k.BaseChains(ctx, name)
		if err != nil && !errors.Is(err, nft.ErrNotExist) {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		if len(base) > 0 {
			names = append(names, name)
		}
	}
	return names, nil
}

// tracked reports whether the node knows its connections. Otherwise every packet of a
// connection that exists would look like one from nowhere. It does if a table of ours,
// which looks at them, has been in force already. But a table without pods held their
// packets back, and no connection became known by that. Where there is no table, the
// node knows them if it tracks some.
func tracked(ctx context.Context, cfg Config, tables []string) (bool, error) {
	for _, name := range tables {
		early, err := isEarly(ctx, cfg.Kernel, name)
		if err != nil {
			return false, fmt.Errorf("table %s: %w", name, err)
		}
		if !early {
			return true, nil
		}
	}
	if len(tables) > 0 {
		return false, nil
	}
	active, err := cfg.Connections.Active(ctx)
	if err != nil {
		return false, fmt.Errorf("connections of the node: %w", err)
	}
	return active, nil
}

// isEarly reports whether a table is as holdBackEarly makes it: without the chain that
// looks at connections from nowhere, and without a pod out of quarantine.
func isEarly(ctx context.Context, k nft.Kernel, table string) (bool, error) {
	t, _, err := k.Read(ctx, table, "midstream")
	if err != nil && !errors.Is(err, nft.ErrNotExist) {
		return false, err
	}
	if err == nil && len(t.Chains) > 0 {
		return false, nil
	}
	for _, set := range []*nft.Set{
		{Name: "eg4", Type: nft.TypeAddr4, Map: true}, {Name: "eg6", Type: nft.TypeAddr6, Map: true},
		{Name: "local4", Type: nft.TypeAddr4}, {Name: "local6", Type: nft.TypeAddr6}, // of earlier releases
	} {
		pods, err := k.Elements(ctx, table, set)
		if err != nil && !errors.Is(err, nft.ErrNotExist) {
			return false, err
		}
		if len(pods) > 0 {
			return false, nil
		}
	}
	return true, nil
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

// devices returns the indexes of the veths by name, and for each single address that a
// route leads to, the veth that it leads through.
func (l links) devices() (indexes map[string]int, routes map[netip.Addr]string, err error) {
	h, err := l.open()
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	list, err := whole(h.LinkList)
	if err != nil {
		return nil, nil, err
	}
	indexes = map[string]int{}
	veths := map[int]string{}
	for _, link := range list {
		if link.Type() == "veth" {
			indexes[link.Attrs().Name] = link.Attrs().Index
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
	return indexes, routes, nil
}
