package node

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// family is one of the two IP families as br_netfilter tells them apart.
type family struct {
	index  int // into the arrays of a bridge
	name   string
	sysctl string // below net.bridge
	option uint16 // the bridge's own switch, which is enough too
}

var families = [...]family{
	{0, "IPv4", "bridge-nf-call-iptables", unix.IFLA_BR_NF_CALL_IPTABLES},
	{1, "IPv6", "bridge-nf-call-ip6tables", unix.IFLA_BR_NF_CALL_IP6TABLES},
}

func familyIndex(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 0
	}
	return 1
}

// bridge is a Linux bridge of the namespace, by family.
type bridge struct {
	index int
	name  string
	calls [len(families)]bool // its own options of br_netfilter are on
	pods  [len(families)]bool // it has pods with addresses of the family
}

// podBridges returns the bridges that pods are attached to, sorted by name.
func podBridges(local Local) ([]bridge, error) {
	bridges, err := listBridges()
	if err != nil || len(bridges) == 0 {
		return nil, err
	}
	for i := range bridges {
		if err := bridges[i].findPods(local); err != nil {
			return nil, fmt.Errorf("bridge %s: %w", bridges[i].name, err)
		}
	}
	if err := findRouted(bridges, local.Addrs); err != nil {
		return nil, err
	}
	bridges = slices.DeleteFunc(bridges, func(b bridge) bool { return b.pods == [len(families)]bool{} })
	slices.SortFunc(bridges, func(a, b bridge) int { return cmp.Compare(a.name, b.name) })
	return bridges, nil
}

// findPods looks at the bridge's own addresses and at its ports.
func (b *bridge) findPods(local Local) error {
	addrs, err := listAddrs(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: b.index, Name: b.name}})
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		for _, cidr := range local.PodCIDRs {
			if cidr.Contains(addr) {
				b.pods[familyIndex(addr)] = true
			}
		}
	}
	if len(local.Devices) == 0 {
		return nil
	}
	ports, err := listPorts(b.index)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ports, func(p string) bool { return slices.Contains(local.Devices, p) }) {
		return nil
	}
	for i, used := range familiesOf(local) {
		b.pods[i] = b.pods[i] || used
	}
	return nil
}

// familiesOf returns the families that pods have; both if nothing is known.
func familiesOf(local Local) (out [len(families)]bool) {
	for _, c := range local.PodCIDRs {
		out[familyIndex(c.Addr())] = true
	}
	for _, a := range local.Addrs {
		out[familyIndex(a)] = true
	}
	if out == [len(families)]bool{} {
		return [len(families)]bool{true, true}
	}
	return out
}

// findRouted asks the kernel where it would send packets to the addresses. One
// that it would send through a gateway is not behind the bridge, but elsewhere,
// and the bridge is part of the node's uplink.
func findRouted(bridges []bridge, addrs []netip.Addr) error {
	for _, a := range addrs {
		routes, err := netlink.RouteGet(a.AsSlice())
		var errno syscall.Errno
		switch {
		case errors.As(err, &errno) && slices.Contains(noRoute, errno):
			continue
		case err != nil:
			return fmt.Errorf("route to %v: %w", a, err)
		}
		for _, r := range routes {
			if i := slices.IndexFunc(bridges, func(b bridge) bool { return b.index == r.LinkIndex }); i >= 0 && r.Gw == nil && r.Via == nil {
				bridges[i].pods[familyIndex(a)] = true
			}
		}
	}
	return nil
}

// noRoute are the answers for addresses that lead nowhere: there is no route, or
// one of type unreachable, blackhole, prohibit or throw.
var noRoute = []syscall.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES, unix.EAGAIN}

// listBridges dumps the bridges. The netlink package decodes neither option of
// br_netfilter.
func listBridges() ([]bridge, error) {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	links, err := dumpLinks(kind)
	if err != nil {
		return nil, fmt.Errorf("list bridges: %w", err)
	}
	var out []bridge
	for _, l := range links {
		info := l.attrs[unix.IFLA_LINKINFO]
		attrs, err := attributes(info)
		if err != nil {
			return nil, fmt.Errorf("link %s: %w", l.name(), err)
		}
		// Kernels without the filter return all links.
		if zeroTerminated(attrs[nl.IFLA_INFO_KIND]) != "bridge" {
			continue
		}
		options, err := attributes(attrs[nl.IFLA_INFO_DATA])
		if err != nil {
			return nil, fmt.Errorf("bridge %s: %w", l.name(), err)
		}
		b := bridge{index: l.index, name: l.name()}
		for _, f := range families {
			v := options[f.option]
			b.calls[f.index] = len(v) == 1 && v[0] != 0
		}
		out = append(out, b)
	}
	return out, nil
}

// listPorts returns the names of the ports of a bridge.
func listPorts(index int) ([]string, error) {
	master := binary.NativeEndian.AppendUint32(nil, uint32(index))
	links, err := dumpLinks(nl.NewRtAttr(unix.IFLA_MASTER, master))
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	var out []string
	for _, l := range links {
		if slices.Equal(l.attrs[unix.IFLA_MASTER], master) {
			out = append(out, l.name())
		}
	}
	return out, nil
}

// tries bounds how often a dump is repeated that was interrupted by a change.
const tries = 5

func listAddrs(link netlink.Link) (out []netlink.Addr, err error) {
	for range tries {
		if out, err = netlink.AddrList(link, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	return out, nil
}

// link is one link of a dump: its index and its attributes.
type link struct {
	index int
	attrs map[uint16][]byte
}

func (l link) name() string { return zeroTerminated(l.attrs[unix.IFLA_IFNAME]) }

// skipStats (RTEXT_FILTER_SKIP_STATS) leaves out the counters, most of the answer.
const skipStats = 1 << 3

// dumpLinks returns the links that the kernel finds with a filter.
func dumpLinks(filter *nl.RtAttr) ([]link, error) {
	var messages [][]byte
	err := error(netlink.ErrDumpInterrupted)
	for n := 0; n < tries && errors.Is(err, netlink.ErrDumpInterrupted); n++ {
		request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats)))
		request.AddData(filter)
		messages, err = request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	}
	if err != nil {
		return nil, err
	}
	out := make([]link, 0, len(messages))
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			return nil, errors.New("short netlink message")
		}
		attrs, err := attributes(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, err
		}
		out = append(out, link{int(nl.DeserializeIfInfomsg(m).Index), attrs})
	}
	return out, nil
}

// attributes decodes netlink attributes by type.
func attributes(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, fmt.Errorf("netlink attributes: %w", err)
	}
	out := make(map[uint16][]byte, len(list))
	for _, a := range list {
		out[a.Attr.Type&^unix.NLA_F_NESTED] = a.Value
	}
	return out, nil
}

func zeroTerminated(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}
