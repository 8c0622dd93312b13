package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	node   = "node-1"
	client = "shop/client"
	server = "shop/server"
)

// place is what the sites of one comparison have in common.
type place struct {
	topology lab.Topology
	six      bool // IPv6
}

func (p place) String() string {
	if p.six {
		return p.topology.String() + "-v6"
	}
	return p.topology.String() + "-v4"
}

// addrs returns the addresses of a pod, IPv4 first.
func addrs(last int) []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{10, 244, 1, byte(last)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:10:244:1::%x", last)),
	}
}

var (
	clientAddrs = addrs(10)
	serverAddrs = addrs(20)
)

func (p place) of(addrs []netip.Addr) netip.Addr {
	if p.six {
		return addrs[1]
	}
	return addrs[0]
}

// site is a node with two pods and rules of some kind. All sites of a comparison
// stay up side by side.
type site struct {
	*lab.Lab
	place
	sender *sender
	// flows is connection tracking in the node's namespace.
	flows *netlink.Handle
	// sink is nftables in the server's namespace, which counts and drops what the
	// sender sent as early as possible.
	sink  *nftables.Conn
	chain *nftables.Chain

	listener *listener
	closers  []func() error
}

func newSite(p place) (*site, error) {
	l, err := lab.New(lab.Config{Topology: p.topology, Nodes: []string{node}})
	if err != nil {
		return nil, err
	}
	s := &site{Lab: l, place: p, closers: []func() error{l.Close}}
	if err := s.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("build %s site: %w", p, err), s.Close())
	}
	return s, nil
}

// Close removes everything.
func (s *site) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *site) build() error {
	if err := errors.Join(s.AddPod(node, client, clientAddrs), s.AddPod(node, server, serverAddrs)); err != nil {
		return err
	}
	t, err := s.wire()
	if err != nil {
		return err
	}
	err = s.In(client, func() (err error) {
		s.sender, err = newSender(t)
		return err
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.sender.Close)
	if s.flows, err = netlink.NewHandleAt(netns.NsHandle(s.NetNS(node)), unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("open connection tracking: %w", err)
	}
	s.closers = append(s.closers, func() error { s.flows.Close(); return nil })
	if s.listener, err = listen(s); err != nil {
		return err
	}
	s.closers = append(s.closers, s.listener.Close)
	return s.drain()
}

// wire finds out how packets of the client reach the server, and makes what the
// node has learned of them permanent, so that it never has to ask in the middle
// of a measurement.
func (s *site) wire() (target, error) {
	t := target{src: s.of(clientAddrs), dst: s.of(serverAddrs)}
	mine, port, err := s.link(client)
	if err != nil {
		return t, err
	}
	theirs, serverPort, err := s.link(server)
	if err != nil {
		return t, err
	}
	t.link, t.from = mine.Attrs().Index, mine.Attrs().HardwareAddr
	links, err := netlink.NewHandleAt(netns.NsHandle(s.NetNS(node)), unix.NETLINK_ROUTE)
	if err != nil {
		return t, fmt.Errorf("open route netlink: %w", err)
	}
	defer links.Close()
	if s.topology == lab.Bridged {
		t.to = theirs.Attrs().HardwareAddr
		return t, links.NeighSet(&netlink.Neigh{
			LinkIndex: serverPort.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP,
			Flags: netlink.NTF_MASTER, HardwareAddr: theirs.Attrs().HardwareAddr,
		})
	}
	t.to = port.Attrs().HardwareAddr
	for _, a := range serverAddrs {
		err = errors.Join(err, links.NeighSet(&netlink.Neigh{
			LinkIndex: serverPort.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: a.AsSlice(), HardwareAddr: theirs.Attrs().HardwareAddr,
		}))
	}
	return t, err
}

// link returns both ends of a pod's link.
func (s *site) link(pod string) (inside, outside netlink.Link, err error) {
	find := func(endpoint string, by func(*netlink.Handle) (netlink.Link, error)) (netlink.Link, error) {
		links, err := netlink.NewHandleAt(netns.NsHandle(s.NetNS(endpoint)), unix.NETLINK_ROUTE)
		if err != nil {
			return nil, fmt.Errorf("open route netlink: %w", err)
		}
		defer links.Close()
		return by(links)
	}
	inside, err = find(pod, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByName("eth0") })
	if err != nil {
		return nil, nil, fmt.Errorf("link of %s: %w", pod, err)
	}
	outside, err = find(node, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByIndex(inside.Attrs().ParentIndex) })
	if err != nil {
		return nil, nil, fmt.Errorf("node's link of %s: %w", pod, err)
	}
	return inside, outside, nil
}

// drain counts and drops the sender's packets as they arrive at the server, which
// costs the same in all sites and less than a socket.
func (s *site) drain() error {
	var err error
	if s.sink, err = nftables.New(nftables.WithNetNSFd(s.NetNS(server)), nftables.AsLasting()); err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	s.closers = append(s.closers, s.sink.CloseLasting)
	table := s.sink.AddTable(&nftables.Table{Name: "sink", Family: nftables.TableFamilyNetdev})
	s.chain = s.sink.AddChain(&nftables.Chain{
		Name: "sink", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFirst, Device: "eth0",
	})
	// meta l4proto udp udp length 26 counter drop
	s.sink.AddRule(&nftables.Rule{Table: table, Chain: s.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(udpSize)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := s.sink.Flush(); err != nil {
		return fmt.Errorf("drain the server: %w", err)
	}
	return nil
}

// arrived returns how many of the sender's packets have reached the server so far.
func (s *site) arrived() (uint64, error) {
	rules, err := s.sink.GetRules(s.chain.Table, s.chain)
	if err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				return c.Packets, nil
			}
		}
	}
	return 0, errors.New("read counter: there is none")
}

// forget empties connection tracking.
func (s *site) forget() error {
	if err := s.flows.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("flush connection tracking: %w", err)
	}
	return nil
}
