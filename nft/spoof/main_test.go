package spoof

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(m, lab.NFTables, lab.BridgeNetfilter, lab.NFTBinary) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// newNetNS returns a namespace that has only veths of the given names.
func newNetNS(t testing.TB, devices ...string) int {
	t.Helper()
	lab.Require(t, lab.NFTables, lab.NFTBinary)
	fd := -1
	require.NoError(t, onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	for i, d := range devices {
		addDevice(t, fd, d, i)
	}
	return fd
}

func addDevice(t testing.TB, netns int, name string, n int) {
	t.Helper()
	in(t, netns, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("peer", n)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		peer, err := netlink.LinkByName(veth.PeerName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(peer); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
}

func delDevice(t testing.TB, netns int, name string) {
	t.Helper()
	in(t, netns, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// in runs f on a thread inside a network namespace.
func in(t testing.TB, netns int, f func() error) {
	t.Helper()
	require.NoError(t, onThread(func() error {
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	}))
}

// onThread runs f on a thread that is not used for anything else.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func open(t testing.TB, netns int) *Guard {
	t.Helper()
	g, err := Open(netns)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// wire sends frames into a device from its other end and tells which of them the
// guard lets through. A second netdev chain, behind the guard's, counts them by
// their destination.
type wire struct {
	t        testing.TB
	node     int // namespace of the device
	conn     *nftables.Conn
	socket   int // a packet socket at the other end
	index    int // of the other end
	counters *nftables.Chain
}

// Destinations, which say who counts a frame. The marker follows each frame, so that it
// is known when that one has been decided.
var (
	frameTag  = [6]byte{0x02, 0xff, 0, 0, 0, 1}
	markerTag = [6]byte{0x02, 0xff, 0, 0, 0, 2}
)

// newWire attaches to a device of the namespace node and to its other end, a device of
// the namespace end.
func newWire(t testing.TB, node int, device string, end int, other string) *wire {
	t.Helper()
	w := &wire{t: t, node: node}
	var err error
	w.conn, err = nftables.New(nftables.WithNetNSFd(node))
	require.NoError(t, err)
	witness := w.conn.AddTable(&nftables.Table{Name: "witness_" + device, Family: nftables.TableFamilyNetdev})
	w.counters = w.conn.AddChain(&nftables.Chain{
		Name: "count", Table: witness, Device: device, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
	})
	for _, tag := range [][6]byte{frameTag, markerTag} {
		w.conn.AddRule(&nftables.Rule{Table: witness, Chain: w.counters, Exprs: []expr.Any{
			load(expr.PayloadBaseLLHeader, 0, 6), compare(expr.CmpOpEq, tag[:]), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	require.NoError(t, w.conn.Flush())
	in(t, end, func() error {
		link, err := netlink.LinkByName(other)
		if err != nil {
			return err
		}
		w.index = link.Attrs().Index
		w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { _ = unix.Close(w.socket) })
	return w
}

// counts returns how many frames and markers got past the guard.
func (w *wire) counts() (frames, markers uint64) {
	rules, err := w.conn.GetRules(w.counters.Table, w.counters)
	require.NoError(w.t, err)
	require.Len(w.t, rules, 2)
	return rules[0].Exprs[2].(*expr.Counter).Packets, rules[1].Exprs[2].(*expr.Counter).Packets
}

// passes sends a frame, whose destination it overwrites, and reports whether it got
// through. marker is a frame that certainly does. Both are sent from one processor:
// the kernel then handles them in order.
func (w *wire) passes(frame, marker []byte) bool {
	w.t.Helper()
	before, markers := w.counts()
	in(w.t, w.node, func() error { return w.send(tagged(frame, frameTag), tagged(marker, markerTag)) })
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, now := w.counts()
		if now > markers {
			return after > before
		}
		require.True(w.t, time.Now().Before(deadline), "the marker was lost")
	}
}

func (w *wire) send(frames ...[]byte) error {
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if cpus.IsSet(i) {
			cpus.Zero()
			cpus.Set(i)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &cpus); err != nil { // of this thread, which ends soon
		return err
	}
	for _, f := range frames {
		if err := unix.Sendto(w.socket, f, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
			return err
		}
	}
	return nil
}

func tagged(frame []byte, tag [6]byte) []byte { return append(tag[:], frame[6:]...) }
