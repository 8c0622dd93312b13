package conntrack

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(m, lab.NFTables) }

// newNetNS returns an empty network namespace that vanishes with the test.
func newNetNS(t testing.TB) int {
	t.Helper()
	lab.Require(t, lab.NFTables)
	fd := -1
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		done <- err
	}()
	require.NoError(t, <-done)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func openConn(t testing.TB, netns int) *Conn {
	t.Helper()
	c, err := Open(netns)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

const (
	msgNew         = 0
	attrTimeout    = 7
	attrTCPState   = 1
	tcpEstablished = 3
)

// makeFlow returns a flow that is not in the kernel: "client:port > server:port",
// the server called as called (empty: by its own address) and answering to
// answered (empty: the client).
func makeFlow(protocol uint8, client, server, called, answered string) Flow {
	c, s := netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
	f := Flow{
		Protocol: protocol, Client: c.Addr(), ClientPort: c.Port(), Server: s.Addr(), ServerPort: s.Port(),
		called: s, answered: c,
	}
	if called != "" {
		f.called = netip.MustParseAddrPort(called)
	}
	if answered != "" {
		f.answered = netip.MustParseAddrPort(answered)
	}
	return f
}

// insert makes entries in the kernel.
func insert(t testing.TB, c *Conn, flows ...Flow) {
	t.Helper()
	for _, f := range flows {
		insertWith(t, c, f, func(*writer) {})
	}
}

func insertWith(t testing.TB, c *Conn, f Flow, more func(*writer)) {
	t.Helper()
	attrs := func(w *writer) {
		w.original(f)
		w.nest(attrTupleReply, func() {
			w.nest(attrTupleIP, func() {
				w.addr(f.Server, attrIPv4Src, attrIPv6Src)
				w.addr(f.answered.Addr(), attrIPv4Dst, attrIPv6Dst)
			})
			w.nest(attrTupleProto, func() {
				w.bytes(attrProtoNum, []byte{f.Protocol})
				w.uint16(attrProtoSrcPort, f.ServerPort)
				w.uint16(attrProtoDstPort, f.answered.Port())
			})
			if f.zone.dir == zoneReply {
				w.uint16(attrTupleZone, f.zone.id)
			}
		})
		w.uint32(attrTimeout, 3600)
		if f.Protocol == unix.IPPROTO_TCP {
			w.nest(attrProtoInfo, func() {
				w.nest(attrProtoInfoTCP, func() { w.bytes(attrTCPState, []byte{tcpEstablished}) })
			})
		}
		more(w)
	}
	err := c.ask(context.Background(), &c.control, msgNew, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, familyOf(f.Client), attrs, func([]byte) {})
	require.NoError(t, err, "insert %+v", f)
}

// collect returns what list calls its function with.
func collect(t testing.TB, list func(context.Context, func(Flow)) error) []Flow {
	t.Helper()
	var out []Flow
	require.NoError(t, list(context.Background(), func(f Flow) { out = append(out, f) }))
	return out
}

func flowsOf(t testing.TB, c *Conn, addrs ...string) []Flow {
	t.Helper()
	var as []netip.Addr
	for _, a := range addrs {
		as = append(as, netip.MustParseAddr(a))
	}
	return collect(t, func(ctx context.Context, fn func(Flow)) error { return c.FlowsOf(ctx, as, fn) })
}

// tell writes flows as their ends see them.
func tell(flows []Flow) []string {
	var out []string
	for _, f := range flows {
		out = append(out, fmt.Sprintf("%d %v > %v", f.Protocol, netip.AddrPortFrom(f.Client, f.ClientPort), netip.AddrPortFrom(f.Server, f.ServerPort)))
	}
	return out
}
