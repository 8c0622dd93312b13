package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Source ports, echo identifiers and so on are handed out in sequence from
// this range: above the NodePort range, so that they never name a service.
const firstPort, lastPort = 33000, 64999

// namespace is a network namespace held open by a descriptor.
type namespace struct {
	file  *os.File
	links *netlink.Handle // a route socket that lives inside

	flows atomic.Uint32 // number of source ports handed out
	sctp  SCTPMode      // SCTPSockets or SCTPPackets

	mu      sync.Mutex
	servers map[serverKey]io.Closer
}

// newNamespace makes a namespace, writes the sysctls and brings up its loopback.
func newNamespace(sysctls []sysctl) (*namespace, error) {
	n := &namespace{servers: map[serverKey]io.Closer{}, sctp: SCTPPackets}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		var err error
		if n.file, err = os.Open(threadNetNS); err != nil {
			return err
		}
		if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open route netlink: %w", err)
		}
		return writeSysctls(sysctls)
	})
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	lo, err := n.links.LinkByName("lo")
	if err == nil {
		err = n.links.LinkSetUp(lo)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring up lo: %w", err), n.close())
	}
	return n, nil
}

// newNamespace makes a namespace that speaks SCTP as the Lab does.
func (l *Lab) newNamespace(sysctls []sysctl) (*namespace, error) {
	n, err := newNamespace(sysctls)
	if err != nil {
		return nil, err
	}
	n.sctp = l.cfg.SCTP
	if n.sctp == SCTPPackets && kernelHasSCTP() {
		if err := n.silenceKernelSCTP(); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

// close stops the servers and lets the kernel remove the namespace, which it
// does in the background.
func (n *namespace) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, s := range n.servers {
		errs = append(errs, s.Close())
	}
	n.servers = nil
	if n.links != nil {
		n.links.Close()
	}
	if n.file != nil {
		errs = append(errs, n.file.Close())
	}
	return errors.Join(errs...)
}

func (n *namespace) fd() int { return int(n.file.Fd()) }

// nextPort returns a source port that no earlier flow of this namespace had.
func (n *namespace) nextPort() uint16 {
	return firstPort + uint16((n.flows.Add(1)-1)%(lastPort-firstPort+1))
}

// in runs f on a thread inside the namespace.
func (n *namespace) in(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

const threadNetNS = "/proc/thread-self/ns/net"

// onThread runs f, which may change the thread's network namespace, and puts
// the thread back where it was, so that it nests.
func onThread(f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot go back stays locked: the runtime ends it
		// together with this goroutine instead of giving it to another one.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = unix.Close(home)
	}()
	return f()
}

// socket opens a nonblocking socket inside the namespace. Only its creation
// has to happen there: a socket belongs to the namespace it was made in.
func (n *namespace) socket(domain, typ, protocol int) (fd int, err error) {
	err = n.in(func() error {
		fd, err = unix.Socket(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if domain == unix.AF_INET6 && typ != unix.SOCK_RAW {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	if protocol == unix.IPPROTO_SCTP && typ == unix.SOCK_STREAM {
		// Unlike TCP, SCTP tells of ICMP errors only who asks for them.
		level, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if domain == unix.AF_INET6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("RECVERR: %w", err)
		}
	}
	return fd, nil
}

func domainOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// sysctl is a path below /proc/sys/net and the value to write.
type sysctl struct {
	path, value string
	optional    bool // kernels without it behave as wanted anyway
}

func writeSysctls(list []sysctl) error {
	for _, s := range list {
		fd, err := unix.Open("/proc/sys/net/"+s.path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(s.value))
			_ = unix.Close(fd)
		}
		if err != nil && !s.optional {
			return fmt.Errorf("set net.%s = %s: %w", strings.ReplaceAll(s.path, "/", "."), s.value, err)
		}
	}
	return nil
}

// endSysctls are the settings of a namespace that ends connections. Interfaces
// made afterwards inherit the default ones: no duplicate address detection and
// no router discovery (addresses and routes work at once), no generated
// link-local address (it would be tentative for a moment; the lab adds its own),
// and no redirects (they would outlive the pod that they lead to).
func endSysctls() []sysctl {
	list := []sysctl{
		{path: "ipv6/conf/all/disable_ipv6", value: "0", optional: true},
		{path: "ipv6/conf/default/disable_ipv6", value: "0", optional: true},
		{path: "ipv6/conf/default/accept_dad", value: "0", optional: true},
		{path: "ipv6/conf/default/dad_transmits", value: "0", optional: true},
		{path: "ipv6/conf/default/accept_ra", value: "0", optional: true},
		{path: "ipv6/conf/default/autoconf", value: "0", optional: true},
		{path: "ipv6/conf/default/router_solicitations", value: "0", optional: true},
		{path: "ipv6/conf/default/addr_gen_mode", value: "1", optional: true},
		{path: "ipv6/conf/all/accept_redirects", value: "0", optional: true},
		{path: "ipv6/conf/default/accept_redirects", value: "0", optional: true},
		{path: "ipv6/icmp/ratelimit", value: "0", optional: true},
		{path: "ipv4/conf/all/accept_redirects", value: "0"},
		{path: "ipv4/conf/default/accept_redirects", value: "0"},
		{path: "ipv4/conf/all/rp_filter", value: "0"},
		{path: "ipv4/conf/default/rp_filter", value: "0"},
		// The first packet of an association is repeated after this time, in
		// milliseconds, and not after three seconds.
		{path: "sctp/rto_min", value: "100", optional: true},
		{path: "sctp/rto_initial", value: "100", optional: true},
		{path: "sctp/sack_timeout", value: "1", optional: true}, // data is acknowledged at once
		{path: "ipv4/icmp_ratelimit", value: "0", optional: true},
		{path: "ipv4/icmp_msgs_per_sec", value: "1000000", optional: true},
		{path: "ipv4/ping_group_range", value: fmt.Sprintf("%d %d", os.Getegid(), os.Getegid())},
	}
	return list
}

// routerSysctls are those of a namespace that forwards.
func routerSysctls() []sysctl {
	list := []sysctl{
		{path: "ipv4/ip_forward", value: "1"}, // first: it resets others
		{path: "ipv6/conf/all/forwarding", value: "1", optional: true},
		{path: "ipv4/conf/all/send_redirects", value: "0"},
		{path: "ipv4/conf/default/send_redirects", value: "0"},
	}
	return append(list, endSysctls()...)
}

// nodeSysctls are those of a node. Flows without an end are forgotten soon.
func nodeSysctls(t Topology) []sysctl {
	list := append(routerSysctls(),
		sysctl{path: "netfilter/nf_conntrack_udp_timeout", value: "10", optional: true},
		sysctl{path: "netfilter/nf_conntrack_udp_timeout_stream", value: "10", optional: true},
		sysctl{path: "netfilter/nf_conntrack_icmp_timeout", value: "10", optional: true},
		sysctl{path: "netfilter/nf_conntrack_icmpv6_timeout", value: "10", optional: true},
	)
	if t == Bridged {
		list = append(list,
			sysctl{path: "bridge/bridge-nf-call-iptables", value: "1"},
			sysctl{path: "bridge/bridge-nf-call-ip6tables", value: "1"},
		)
	}
	return list
}
