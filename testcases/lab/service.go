package lab

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Service is a Kubernetes Service as far as packets see it.
type Service struct {
	Name       string       // identifies the Service among the Lab's
	ClusterIPs []netip.Addr // any of both families
	Ports      []ServicePort
	Backends   []netip.Addr // pod addresses; a flow goes to one of its own family
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Protocol   string // "tcp", "udp", "sctp"
	Port       uint16 // at the cluster IPs
	TargetPort uint16 // at the backends; 0 means Port
	NodePort   uint16 // at every address of every node; 0 means none
}

const (
	serviceTable = "lab-services"
	// masqueradeMark is set on packets whose source postrouting replaces. It is
	// the bit that kube-proxy uses.
	masqueradeMark = 0x4000
)

// SetService adds or replaces a Service on every node the way kube-proxy does:
// destination NAT in prerouting and output, each new flow to a random backend of
// its family, and masquerading of flows through a node port, of flows to a
// cluster IP that come from no pod, and of a backend that reaches itself.
// A Service without backends of a family translates nothing of that family.
func (l *Lab) SetService(s Service) error {
	if err := checkService(s); err != nil {
		return fmt.Errorf("service %q: %w", s.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services[s.Name] = s
	return l.syncServices()
}

// RemoveService removes a Service. Removing one that is not there is no error.
func (l *Lab) RemoveService(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.services, name)
	return l.syncServices()
}

func checkService(s Service) error {
	for _, p := range s.Ports {
		if _, ok := protocolNumbers[p.Protocol]; !ok || p.Port == 0 {
			return fmt.Errorf("port %s/%d: want a port of tcp, udp or sctp", p.Protocol, p.Port)
		}
	}
	for _, a := range slices.Concat(s.ClusterIPs, s.Backends) {
		if !a.IsValid() || a.Is4In6() {
			return fmt.Errorf("address %v is neither IPv4 nor IPv6", a)
		}
	}
	return nil
}

var protocolNumbers = map[string]byte{tcp: unix.IPPROTO_TCP, udp: unix.IPPROTO_UDP, sctp: unix.IPPROTO_SCTP}

// syncServices replaces the tables of all nodes, each in one transaction.
func (l *Lab) syncServices() error {
	for _, n := range l.nodes {
		conn, err := nftables.New(nftables.WithNetNSFd(n.fd()))
		if err != nil {
			return fmt.Errorf("node %s: open nftables: %w", n.name, err)
		}
		for _, ipv6 := range []bool{false, true} {
			if ipv6 && !l.cfg.IPv6 || !ipv6 && !l.cfg.IPv4 {
				continue
			}
			b := newServiceRules(conn, ipv6, l.clusterCIDRs(ipv6))
			for _, name := range slices.Sorted(maps.Keys(l.services)) {
				b.addService(l.services[name])
			}
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("node %s: write services: %w", n.name, err)
		}
	}
	return nil
}

func (l *Lab) clusterCIDRs(ipv6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range l.nodes {
		for _, c := range l.podCIDRs(n.index) {
			if c.Addr().Is6() == ipv6 {
				out = append(out, c)
			}
		}
	}
	return out
}

// serviceRules writes the table of one family:
//
//	table ip lab-services {
//	  chain prerouting { type nat hook prerouting priority dstnat; jump services }
//	  chain output     { type nat hook output priority dstnat; jump services }
//	  chain services   {
//	    ip daddr 10.96.0.10 udp dport 53 goto port-1 ; ...
//	    fib daddr type local tcp dport 30080 goto nodeport-1 ; ...
//	  }
//	  chain port-1     { ip saddr 10.244.1.0/24 jump backends-1 ; ... ; meta mark set mark or 0x4000 ; goto backends-1 }
//	  chain nodeport-1 { meta mark set mark or 0x4000 ; goto backends-1 }
//	  chain backends-1 { numgen random mod 2 0 goto backend-1-0 ; goto backend-1-1 }
//	  chain backend-1-0 { ip saddr 10.244.1.5 meta mark set mark or 0x4000 ; dnat to 10.244.1.5:8053 }
//	  chain postrouting { type nat hook postrouting priority srcnat; meta mark & 0x4000 != 0 masquerade }
//	}
type serviceRules struct {
	conn     *nftables.Conn
	table    *nftables.Table
	services *nftables.Chain
	ipv6     bool
	cluster  []netip.Prefix
	ports    int
}

func newServiceRules(conn *nftables.Conn, ipv6 bool, cluster []netip.Prefix) *serviceRules {
	table := &nftables.Table{Name: serviceTable, Family: nftables.TableFamilyIPv4}
	if ipv6 {
		table.Family = nftables.TableFamilyIPv6
	}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	b := &serviceRules{conn: conn, table: table, ipv6: ipv6, cluster: cluster}
	b.services = b.chain("services")
	for _, hook := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority *nftables.ChainPriority
	}{
		{"prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest},
		{"output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest},
		{"postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource},
	} {
		base := conn.AddChain(&nftables.Chain{
			Name: hook.name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook.hook, Priority: hook.priority,
		})
		if hook.name != "postrouting" {
			b.rule(base, jumpTo(b.services))
			continue
		}
		// meta mark & 0x4000 != 0 masquerade
		b.rule(base,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(masqueradeMark), Xor: native(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
			&expr.Masq{})
	}
	return b
}

func (b *serviceRules) addService(s Service) {
	backends := b.family(s.Backends)
	if len(backends) == 0 {
		return
	}
	for _, p := range s.Ports {
		b.ports++
		target := p.TargetPort
		if target == 0 {
			target = p.Port
		}
		to := b.addBackends(backends, target)
		at := b.chain(fmt.Sprintf("port-%d", b.ports))
		for _, c := range b.cluster {
			// ip saddr <pods> goto backends
			b.rule(at, append(b.matchSource(c), gotoChain(to))...)
		}
		b.rule(at, markForMasquerade()...)
		b.rule(at, gotoChain(to))
		for _, ip := range b.family(s.ClusterIPs) {
			// ip daddr <cluster IP> <proto> dport <port> goto port-n
			match := append(b.matchAddr(ip, b.offset(false)), matchPort(p.Protocol, p.Port)...)
			b.rule(b.services, append(match, gotoChain(at))...)
		}
		if p.NodePort == 0 {
			continue
		}
		at = b.chain(fmt.Sprintf("nodeport-%d", b.ports))
		b.rule(at, markForMasquerade()...)
		b.rule(at, gotoChain(to))
		// fib daddr type local <proto> dport <node port> goto nodeport-n
		match := []expr.Any{
			&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)},
		}
		match = append(match, matchPort(p.Protocol, p.NodePort)...)
		b.rule(b.services, append(match, gotoChain(at))...)
	}
}

// addBackends makes the chain that chooses a backend and those of the backends.
func (b *serviceRules) addBackends(backends []netip.Addr, port uint16) *nftables.Chain {
	choose := b.chain(fmt.Sprintf("backends-%d", b.ports))
	for i, addr := range backends {
		one := b.chain(fmt.Sprintf("backend-%d-%d", b.ports, i))
		// ip saddr <backend> meta mark set meta mark or 0x4000
		b.rule(one, append(b.matchAddr(addr, b.offset(true)), markForMasquerade()...)...)
		b.rule(one, b.dnat(addr, port)...)
		// Each rule draws anew: 1/n of all, 1/(n-1) of the rest, and so on.
		var chance []expr.Any
		if left := len(backends) - i; left > 1 {
			chance = []expr.Any{
				&expr.Numgen{Register: 1, Modulus: uint32(left), Type: unix.NFT_NG_RANDOM},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
			}
		}
		b.rule(choose, append(chance, gotoChain(one))...)
	}
	return choose
}

func (b *serviceRules) chain(name string) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table})
}

func (b *serviceRules) rule(chain *nftables.Chain, exprs ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: exprs})
}

func (b *serviceRules) family(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is6() == b.ipv6 {
			out = append(out, a)
		}
	}
	return out
}

// offset is where the source or destination address is in the network header.
func (b *serviceRules) offset(source bool) uint32 {
	switch {
	case b.ipv6 && source:
		return 8
	case b.ipv6:
		return 24
	case source:
		return 12
	}
	return 16
}

func (b *serviceRules) matchAddr(a netip.Addr, offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(a.BitLen() / 8)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

func (b *serviceRules) matchSource(p netip.Prefix) []expr.Any {
	size := uint32(p.Addr().BitLen() / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: b.offset(true), Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: ipNet(p).Mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// dnat is the line: dnat to <address>:<port>
func (b *serviceRules) dnat(a netip.Addr, port uint16) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if b.ipv6 {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2},
	}
}

func matchPort(protocol string, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocolNumbers[protocol]}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

// markForMasquerade is the line: meta mark set meta mark or 0x4000
func markForMasquerade() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: native(^uint32(masqueradeMark)), Xor: native(masqueradeMark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func jumpTo(c *nftables.Chain) expr.Any {
	return &expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}
}

func gotoChain(c *nftables.Chain) expr.Any {
	return &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
