package spoof

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The pod behind dev0, and others.
const (
	own4, own4b, foreign4 = "10.0.0.7", "10.0.0.8", "10.0.0.9"
	own6, own6b, foreign6 = "fd00::7", "fd00::8", "fd00::9"
	local6                = "fe80::7"
)

const (
	ip4, ip6, arpType = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	vlan, qinq        = unix.ETH_P_8021Q, unix.ETH_P_8021AD
)

// frames are what a pod may send and what it may not.
var frames = []struct {
	name  string
	pass  bool
	frame []byte
}{
	{"own IPv4", true, frame(ip4, ipv4(own4))},
	{"own second IPv4", true, frame(ip4, ipv4(own4b))},
	{"foreign IPv4", false, frame(ip4, ipv4(foreign4))},
	{"no IPv4", false, frame(ip4, ipv4("0.0.0.0"))},
	{"IPv4 loopback", false, frame(ip4, ipv4("127.0.0.1"))},
	{"IPv4 broadcast", false, frame(ip4, ipv4("255.255.255.255"))},
	{"own IPv4, one bit off", false, frame(ip4, ipv4("10.0.1.7"))},

	{"own IPv6", true, frame(ip6, udp6(own6))},
	{"own second IPv6", true, frame(ip6, udp6(own6b))},
	{"foreign IPv6", false, frame(ip6, udp6(foreign6))},
	{"foreign IPv6 ping", false, frame(ip6, icmp6(foreign6, 128, ""))},
	{"own IPv6 ping", true, frame(ip6, icmp6(own6, 128, ""))},
	{"link-local IPv6", true, frame(ip6, udp6(local6))},
	{"link-local IPv6, last", true, frame(ip6, udp6("febf::1"))},
	{"site-local IPv6", false, frame(ip6, udp6("fec0::1"))},
	{"IPv6 loopback", false, frame(ip6, udp6("::1"))},
	{"unspecified IPv6", false, frame(ip6, udp6("::"))},
	{"unspecified IPv6 ping", false, frame(ip6, icmp6("::", 128, ""))},
	{"IPv4 as IPv6", false, frame(ip6, udp6("::ffff:10.0.0.7"))},
	{"own IPv6, second fragment", true, frame(ip6, ipv6(own6, unix.IPPROTO_UDP, make([]byte, 8), nextFragment))},
	{"foreign IPv6, second fragment", false, frame(ip6, ipv6(foreign6, unix.IPPROTO_UDP, make([]byte, 8), nextFragment))},
	{"foreign IPv6 behind options", false, frame(ip6, icmp6(foreign6, 143, "", hopByHop))},
	{"IPv6 that ends early", false, frame(ip6, udp6(own6)[:44])},

	{"solicitation", true, frame(ip6, icmp6(own6, 135, foreign6))},
	{"solicitation, link-local", true, frame(ip6, icmp6(local6, 135, foreign6))},
	{"solicitation of another", false, frame(ip6, icmp6(foreign6, 135, own6))},
	{"duplicate address detection", true, frame(ip6, icmp6("::", 135, own6))},
	{"duplicate address detection, second", true, frame(ip6, icmp6("::", 135, own6b))},
	{"duplicate address detection, link-local", true, frame(ip6, icmp6("::", 135, local6))},
	{"duplicate address detection of another", false, frame(ip6, icmp6("::", 135, foreign6))},
	{"advertisement", true, frame(ip6, icmp6(own6, 136, own6))},
	{"advertisement of the second from the first", true, frame(ip6, icmp6(own6, 136, own6b))},
	{"advertisement, link-local", true, frame(ip6, icmp6(local6, 136, local6))},
	{"advertisement of another", false, frame(ip6, icmp6(own6, 136, foreign6))},
	{"advertisement of another, link-local", false, frame(ip6, icmp6(local6, 136, foreign6))},
	{"advertisement of another behind options", false, frame(ip6, icmp6(own6, 136, foreign6, hopByHop))},
	{"advertisement of another in a fragment", false, frame(ip6, icmp6(own6, 136, foreign6, firstFragment))},
	{"advertisement by another", false, frame(ip6, icmp6(foreign6, 136, own6))},
	{"advertisement from nowhere", false, frame(ip6, icmp6("::", 136, own6))},
	{"router solicitation", true, frame(ip6, icmp6(local6, 133, ""))},
	{"router solicitation without address", true, frame(ip6, icmp6("::", 133, ""))},
	{"router advertisement", false, frame(ip6, icmp6(local6, 134, ""))},
	{"redirect", false, frame(ip6, icmp6(local6, 137, foreign6))},
	{"redirect from own", false, frame(ip6, icmp6(own6, 137, foreign6))},
	{"groups before an address", true, frame(ip6, icmp6("::", 143, "", hopByHop))},
	{"groups before an address, version 1", true, frame(ip6, icmp6("::", 131, "", hopByHop))},
	{"groups", true, frame(ip6, icmp6(local6, 143, "", hopByHop))},
	{"query of groups without address", false, frame(ip6, icmp6("::", 130, "", hopByHop))},

	{"ARP request", true, frame(arpType, arp(1, own4))},
	{"ARP reply", true, frame(arpType, arp(2, own4))},
	{"ARP reply of the second", true, frame(arpType, arp(2, own4b))},
	{"ARP probe", true, frame(arpType, arp(1, "0.0.0.0"))},
	{"ARP request of another", false, frame(arpType, arp(1, foreign4))},
	{"ARP reply of another", false, frame(arpType, arp(2, foreign4))},
	{"ARP for token ring", false, frame(arpType, altered(arp(2, own4), 1, 6))},
	{"ARP for another protocol", false, frame(arpType, altered(arp(2, own4), 2, 9))},
	{"ARP with longer hardware addresses", false, frame(arpType, altered(arp(2, own4), 4, 8))},

	{"VLAN, own", false, frame(ip4, ipv4(own4), vlan)},
	{"VLAN, foreign", false, frame(ip4, ipv4(foreign4), vlan)},
	{"VLAN, own IPv6", false, frame(ip6, udp6(own6), vlan)},
	{"VLAN, ARP", false, frame(arpType, arp(2, own4), vlan)},
	{"VLAN in VLAN", false, frame(ip4, ipv4(own4), vlan, vlan)},
	{"VLAN in service VLAN", false, frame(ip4, ipv4(own4), qinq, vlan)},
	{"service VLAN", false, frame(ip4, ipv4(own4), qinq)},
	{"PPPoE", false, frame(0x8864, append([]byte{0x11, 0, 0, 1, 0, 30, 0, 0x21}, ipv4(own4)...))},
	{"MPLS", false, frame(0x8847, append([]byte{0, 0, 0x11, 64}, ipv4(own4)...))},
	{"LLDP", false, frame(0x88cc, make([]byte, 46))},
	{"bridge protocol", false, frame(38, append([]byte{0x42, 0x42, 3}, make([]byte, 43)...))},
	{"unknown", false, frame(0x88b5, make([]byte, 46))},
}

// TestFrames sends every frame with and without a guard: each one gets through where
// there is none, so that it is the guard that stops it.
func TestFrames(t *testing.T) {
	netns := newNetNS(t, "dev0")
	w := newWire(t, netns, "dev0", netns, "peer0")
	marker := frame(ip4, ipv4(own4))
	for _, f := range frames {
		require.True(t, w.passes(f.frame, marker), "%s, without a guard", f.name)
	}
	require.NoError(t, open(t, netns).Set(t.Context(), []Binding{{"dev0", addrs(own6, own4b, own4, own6b)}}))
	for _, f := range frames {
		require.Equal(t, f.pass, w.passes(f.frame, marker), f.name)
	}
}

// TestPodWithoutAddresses may do what comes before an address, and no more.
func TestPodWithoutAddresses(t *testing.T) {
	netns := newNetNS(t, "dev0")
	w := newWire(t, netns, "dev0", netns, "peer0")
	require.NoError(t, open(t, netns).Set(t.Context(), []Binding{{Device: "dev0"}}))
	marker := frame(arpType, arp(1, "0.0.0.0"))
	for name, f := range map[string]struct {
		pass  bool
		frame []byte
	}{
		"ARP probe":           {true, marker},
		"ARP":                 {false, frame(arpType, arp(1, own4))},
		"IPv4":                {false, frame(ip4, ipv4(own4))},
		"IPv6":                {false, frame(ip6, udp6(own6))},
		"advertisement":       {false, frame(ip6, icmp6(local6, 136, own6))},
		"link-local":          {true, frame(ip6, udp6(local6))},
		"detection":           {true, frame(ip6, icmp6("::", 135, local6))},
		"detection of an own": {false, frame(ip6, icmp6("::", 135, own6))},
	} {
		require.Equal(t, f.pass, w.passes(f.frame, marker), name)
	}
}

// TestManyAddresses binds as many as are possible.
func TestManyAddresses(t *testing.T) {
	netns := newNetNS(t, "dev0")
	w := newWire(t, netns, "dev0", netns, "peer0")
	b := Binding{Device: "dev0"}
	for i := range maxAddrs {
		a := addrs("10.1.0.0", "fd01::")[i%2].AsSlice()
		binary.BigEndian.PutUint16(a[len(a)-2:], uint16(i))
		b.Addrs = append(b.Addrs, addrs(ipText(a))...)
	}
	g := open(t, netns)
	require.NoError(t, g.Set(t.Context(), []Binding{b}))
	marker := frame(arpType, arp(1, "0.0.0.0"))
	for _, a := range b.Addrs {
		f := frame(ip6, icmp6(a.String(), 136, a.String()))
		if a.Is4() {
			f = frame(ip4, ipv4(a.String()))
		}
		require.True(t, w.passes(f, marker), a)
	}
	require.False(t, w.passes(frame(ip6, icmp6("fd01::1", 136, "fd01::2")), marker))
	b.Addrs = append(b.Addrs, addrs("10.2.0.0")...)
	require.ErrorContains(t, g.Set(t.Context(), []Binding{b}), "101 addresses")
}
