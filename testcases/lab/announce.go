package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// announce tells the neighbours on a link about a new address, as CNI plugins
// do: one of them may just have asked for it in vain, and would ask again only a
// second later.
func (n *namespace) announce(link netlink.Link, a netip.Addr) error {
	now, err := n.links.LinkByIndex(link.Attrs().Index)
	if err != nil {
		return err
	}
	if a.Is4() {
		err = n.announceARP(now, a)
	} else {
		err = n.announceND(now, a)
	}
	if err != nil {
		return fmt.Errorf("announce %v: %w", a, err)
	}
	return nil
}

// announceARP broadcasts a gratuitous ARP request.
func (n *namespace) announceARP(link netlink.Link, a netip.Addr) error {
	broadcast := [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	packet := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	packet = slices.Concat(packet, link.Attrs().HardwareAddr, a.AsSlice(), broadcast[:6], a.AsSlice())
	fd, err := n.socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{
		Protocol: binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff}),
		Ifindex:  link.Attrs().Index, Halen: 6, Addr: broadcast,
	})
}

// announceND multicasts an unsolicited neighbour advertisement. The kernel fills
// in its checksum.
func (n *namespace) announceND(link netlink.Link, a netip.Addr) error {
	const override = 0x20
	packet := []byte{136, 0, 0, 0, override, 0, 0, 0}
	packet = slices.Concat(packet, a.AsSlice(), []byte{2, 1}, link.Attrs().HardwareAddr) // target, its link-layer address
	fd, err := n.socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(a, 0)); err != nil {
		return err
	}
	allNodes := unix.SockaddrInet6{Addr: [16]byte{0xff, 2, 15: 1}, ZoneId: uint32(link.Attrs().Index)}
	return unix.Sendto(fd, packet, 0, &allNodes)
}
