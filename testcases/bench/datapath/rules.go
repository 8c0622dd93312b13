package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Ports. The first policy of several allows the first port and the last one the
// allowed port, so that one set of rules serves for the best and the worst case. No
// port is next to another: such that share their peers would become a range.
const (
	deniedPort  = 7000
	firstRule   = 7002
	allowedPort = 7004
	otherPorts  = 10000
)

// policyPort returns the port that policy i of n allows.
func policyPort(i, n int) uint16 {
	switch i {
	case n - 1:
		return allowedPort
	case 0:
		return firstRule
	}
	return otherPorts + 2*uint16(i)
}

// peerAddr returns the address of the pod that policy i allows beside the client.
func (p place) peerAddr(i int) netip.Addr {
	if p.six {
		a := netip.MustParseAddr("fd00:200::").As16()
		binary.BigEndian.PutUint32(a[12:], uint32(i))
		return netip.AddrFrom16(a)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|200<<16+uint32(i))
	return netip.AddrFrom4(a)
}

// bare is no table at all.
func bare(*site) error { return nil }

// tracking is the least that makes the kernel track connections:
//
//	chain forward { type filter hook forward priority 0; ct state established,related accept }
func tracking(s *site) error {
	b, err := newBuilder(s)
	if err != nil {
		return err
	}
	defer b.close()
	b.forward()
	return b.flush()
}

// classic is what many write: a chain for each pod that jumps to a chain for each
// of its policies, which asks for a peer set and a port.
//
//	chain forward  { type filter hook forward priority 0; ct state established,related accept; ip daddr vmap @pods }
//	chain pod      { jump policy-0; jump policy-1; …; drop }
//	chain policy-0 { ip saddr @peers-0 th dport 7002 accept }
//
// The kernel takes minutes for tens of thousands of sets; beyond maxDistinct
// policies share theirs, and each asks for its own all the same. more adds as many
// addresses to the peers of the last policy.
func classic(n, more int) func(*site) error {
	return func(s *site) error {
		b, err := newBuilder(s)
		if err != nil {
			return err
		}
		defer b.close()
		forward := b.forward()
		pod := b.chain("pod")
		for i := range n {
			if err := b.policy(pod, i, n, more); err != nil {
				return err
			}
		}
		b.rule(pod, &expr.Verdict{Kind: expr.VerdictDrop})
		pods := &nftables.Set{Table: b.table, Name: "pods", IsMap: true, KeyType: b.keyType(), DataType: nftables.TypeVerdict}
		elements := []nftables.SetElement{{Key: s.of(serverAddrs).AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: "pod"}}}
		if err := b.conn.AddSet(pods, elements); err != nil {
			return fmt.Errorf("add map of pods: %w", err)
		}
		b.rule(forward, append(b.load(b.daddr()), &expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: "pods"})...)
		return b.flush()
	}
}

// socketBuffer holds a batch, and the kernel's replies to it.
const socketBuffer = 64 << 20

// builder writes a table of our own.
type builder struct {
	place
	conn    *nftables.Conn
	table   *nftables.Table
	sets    []*nftables.Set
	pending int
}

func newBuilder(s *site) (*builder, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(s.NetNS(node)), nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &builder{place: s.place, conn: conn, table: conn.AddTable(&nftables.Table{Name: "bench", Family: nftables.TableFamilyINet})}, nil
}

func (b *builder) close() { _ = b.conn.CloseLasting() }

func (b *builder) flush() error {
	b.pending = 0
	if err := b.conn.Flush(); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// forward adds the base chain.
func (b *builder) forward() *nftables.Chain {
	c := b.conn.AddChain(&nftables.Chain{
		Name: "forward", Table: b.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	// ct state established,related accept
	b.rule(c,
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept})
	return c
}

func (b *builder) chain(name string) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table})
}

func (b *builder) rule(c *nftables.Chain, exprs ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: exprs})
}

// policy adds the chain of policy i of n, and the jump to it.
func (b *builder) policy(pod *nftables.Chain, i, n, more int) error {
	set, err := b.peers(i, n, more)
	if err != nil {
		return err
	}
	chain := b.chain(fmt.Sprintf("policy-%d", i))
	port := binaryutil.BigEndian.PutUint16(policyPort(i, n))
	b.rule(chain, append(b.load(b.saddr()),
		&expr.Lookup{SourceRegister: 1, SetName: set.Name},
		// th dport 7002
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: port},
		&expr.Verdict{Kind: expr.VerdictAccept})...)
	b.rule(pod, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name})
	if b.pending += 3; b.pending < 3000 {
		return nil
	}
	return b.flush()
}

// peers returns the peer set of policy i of n. The client is in those of the first
// and of the last one.
func (b *builder) peers(i, n, more int) (*nftables.Set, error) {
	last := i == n-1
	if !last && i >= maxDistinct {
		return b.sets[1+i%(maxDistinct-1)], nil
	}
	set := &nftables.Set{Table: b.table, Name: fmt.Sprintf("peers-%d", i), KeyType: b.keyType()}
	addrs := []netip.Addr{b.peerAddr(i)}
	if last || i == 0 {
		addrs = append(addrs, b.of(clientAddrs))
	}
	if err := b.conn.AddSet(set, elements(addrs)); err != nil {
		return nil, fmt.Errorf("add set: %w", err)
	}
	b.sets = append(b.sets, set)
	if !last {
		return set, nil
	}
	for from := 0; from < more; from += 1000 {
		addrs = addrs[:0]
		for k := from; k < min(from+1000, more); k++ {
			addrs = append(addrs, b.peerAddr(manyPeers+k))
		}
		if err := b.conn.SetAddElements(set, elements(addrs)); err != nil {
			return nil, fmt.Errorf("add peers: %w", err)
		}
	}
	return set, nil
}

// manyPeers is the number of the first peer that belongs to no policy of its own.
const manyPeers = 1 << 17

func elements(addrs []netip.Addr) []nftables.SetElement {
	out := make([]nftables.SetElement, len(addrs))
	for i, a := range addrs {
		out[i].Key = a.AsSlice()
	}
	return out
}

func (b *builder) keyType() nftables.SetDatatype {
	if b.six {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// saddr and daddr are where an address stands in the packet.
func (b *builder) saddr() *expr.Payload {
	if b.six {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}
	}
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
}

func (b *builder) daddr() *expr.Payload {
	p := b.saddr()
	p.Offset += p.Len
	return p
}

// load loads an address, if the packet is of the family.
func (b *builder) load(p *expr.Payload) []expr.Any {
	family := byte(unix.NFPROTO_IPV4)
	if b.six {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		p,
	}
}
