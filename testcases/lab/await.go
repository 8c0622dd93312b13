package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// awaitUp waits until the link can really send. The kernel activates the queue
// of a link whose carrier came up from a workqueue and drops packets until then.
// Since 6.8 asking for the link runs that work; older kernels need a moment.
func awaitUp(n *namespace, link netlink.Link) error {
	index := link.Attrs().Index
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		now, err := n.links.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("look at link %s: %w", link.Attrs().Name, err)
		}
		if now.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s stays %v", link.Attrs().Name, now.Attrs().OperState)
		}
	}
}

// Even without duplicate address detection the kernel finishes a new IPv6 address
// in a workqueue: it joins the solicited-node group, and then makes the route that
// delivers locally. Before the first, neighbours ask in vain, and again only a second
// later; before the second, packets are turned away.

// awaitLocal waits until packets to an address are delivered.
func awaitLocal(n *namespace, a netip.Addr) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		routes, err := n.links.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("address %v is not delivered locally", a), err)
		}
	}
}

// awaitSolicited waits until neighbour solicitations for a link-local address are
// heard, of which there can be one on every link.
func awaitSolicited(n *namespace, link netlink.Link, a netip.Addr) error {
	b := a.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%02x%02x%02x", b[13], b[14], b[15])
	name := link.Attrs().Name
	return n.in(func() error {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
			// Columns: interface index, name, group, users, flags, timer.
			groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
			if err != nil {
				return fmt.Errorf("read multicast groups: %w", err)
			}
			for line := range strings.Lines(string(groups)) {
				if f := strings.Fields(line); len(f) > 2 && f[1] == name && f[2] == group {
					return nil
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not listen to solicitations for %v", name, a)
			}
		}
	})
}
