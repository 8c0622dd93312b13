package conntrack

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	tcp  = unix.IPPROTO_TCP
	udp  = unix.IPPROTO_UDP
	sctp = unix.IPPROTO_SCTP
)

// mixed is a table in which 10.0.0.1 and fd00::1 are at both ends of flows, the
// ends that the kernel's first tuple does not tell of included.
func mixed() []Flow {
	return []Flow{
		makeFlow(tcp, "10.0.0.1:1000", "10.0.0.2:80", "", ""),
		makeFlow(udp, "10.0.0.3:1000", "10.0.0.1:53", "", ""),
		makeFlow(sctp, "10.0.0.1:1000", "10.0.0.2:132", "", ""),
		makeFlow(tcp, "10.0.0.4:1000", "10.0.0.1:8080", "10.96.0.1:80", ""),
		makeFlow(tcp, "192.0.2.1:1000", "10.0.0.1:8080", "10.0.0.9:30080", "10.0.0.9:2000"),
		makeFlow(udp, "10.0.0.1:1001", "10.0.0.1:53", "10.96.0.1:53", "10.0.0.9:2001"),
		makeFlow(tcp, "10.0.0.4:1002", "10.0.0.5:80", "", ""),
		makeFlow(tcp, "10.0.0.4:1003", "10.0.0.5:80", "10.0.0.1:80", ""),   // only called so
		makeFlow(udp, "10.0.0.4:1004", "10.0.0.5:80", "", "10.0.0.1:1004"), // only answered so
		makeFlow(47, "10.0.0.1:0", "10.0.0.2:0", "", ""),                   // neither TCP nor UDP nor SCTP
		makeFlow(tcp, "[fd00::1]:1000", "[fd00::2]:80", "", ""),
		makeFlow(udp, "[fd00::3]:1000", "[fd00::1]:53", "[fd96::1]:5353", ""),
		makeFlow(sctp, "[fd00::3]:1000", "[fd00::4]:132", "", ""),
	}
}

var (
	of4 = []string{
		"132 10.0.0.1:1000 > 10.0.0.2:132",
		"17 10.0.0.1:1001 > 10.0.0.1:53",
		"17 10.0.0.3:1000 > 10.0.0.1:53",
		"6 10.0.0.1:1000 > 10.0.0.2:80",
		"6 10.0.0.4:1000 > 10.0.0.1:8080",
		"6 192.0.2.1:1000 > 10.0.0.1:8080",
	}
	of6 = []string{
		"17 [fd00::3]:1000 > [fd00::1]:53",
		"6 [fd00::1]:1000 > [fd00::2]:80",
	}
)

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func TestFlows(t *testing.T) {
	c := openConn(t, newNetNS(t))
	insert(t, c, mixed()...)
	for range 3 { // with a whole dump, and with what was learnt from it
		require.Equal(t, of4, sorted(tell(flowsOf(t, c, "10.0.0.1"))))
		require.Equal(t, of6, sorted(tell(flowsOf(t, c, "fd00::1"))))
		require.Equal(t, sorted(append(of6, of4...)), sorted(tell(flowsOf(t, c, "fd00::1", "10.0.0.1"))))
		require.Equal(t, of4, sorted(tell(flowsOf(t, c, "10.0.0.1", "10.0.0.1"))))
		require.Empty(t, flowsOf(t, c, "10.0.0.77"))
		require.Empty(t, flowsOf(t, c))
		require.Len(t, flowsOf(t, c, "10.0.0.1", "10.0.0.4"), 6+3, "flows between two that are asked for come once")
		require.Len(t, flowsOf(t, c, "10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.2"), 6+3)
	}
	require.Equal(t, trusted, c.filters[unix.AF_INET], "filtered in the kernel")
	dumps := c.walk.seq
	flowsOf(t, c, "10.0.0.1")
	require.Equal(t, dumps+2, c.walk.seq, "two filtered dumps for one address")
	flowsOf(t, c, "10.0.0.1", "10.0.0.2", "10.0.0.3")
	require.Equal(t, dumps+3, c.walk.seq, "one whole dump for many")
	require.NotEqual(t, trustUnknown, c.filters[unix.AF_INET6])
	require.Len(t, collect(t, c.All), 12)
}

// TestFlowsBothEnds: two filtered dumps tell of a flow once each.
func TestFlowsBothEnds(t *testing.T) {
	c := openConn(t, newNetNS(t))
	insert(t, c, makeFlow(tcp, "10.0.0.1:1", "10.0.0.2:2", "", ""))
	for _, c.filters[unix.AF_INET] = range []trust{trusted, distrusted} {
		require.Len(t, flowsOf(t, c, "10.0.0.1", "10.0.0.2"), 1)
		require.Len(t, flowsOf(t, c, "10.0.0.2", "10.0.0.1"), 1)
	}
}

// TestFilterIsTried: a filter that is ignored, refused or turned around is found
// out, whatever the table holds, and never costs a flow.
func TestFilterIsTried(t *testing.T) {
	for name, d := range map[string]dialect{
		"ignored": {attrFilter + 1000, filterSource}, // a kernel before 5.8
		"refused": {attrFilter, 1 << 31},
	} {
		t.Run(name, func(t *testing.T) {
			c := openConn(t, newNetNS(t))
			c.dialect = d
			require.Empty(t, flowsOf(t, c, "10.0.0.1"))
			require.Equal(t, trustUnknown, c.filters[unix.AF_INET], "an empty table teaches nothing")
			insert(t, c, mixed()...)
			for range 2 {
				require.Equal(t, of4, sorted(tell(flowsOf(t, c, "10.0.0.1"))))
				require.Equal(t, of6, sorted(tell(flowsOf(t, c, "fd00::1"))))
				require.Equal(t, distrusted, c.filters[unix.AF_INET])
				require.Equal(t, distrusted, c.filters[unix.AF_INET6])
			}
		})
	}
	t.Run("the only flows are those asked for", func(t *testing.T) {
		c := openConn(t, newNetNS(t))
		insert(t, c, makeFlow(tcp, "[fd00::1]:1", "[fd00::2]:2", "", ""), makeFlow(udp, "[fd00::1]:1", "[fd00::2]:2", "", ""))
		for range 3 {
			require.Len(t, flowsOf(t, c, "fd00::1"), 2)
			require.Len(t, flowsOf(t, c, "fd00::2"), 2)
		}
	})
}

func TestNATedFlow(t *testing.T) {
	c := openConn(t, newNetNS(t))
	want := makeFlow(udp, "192.0.2.1:1000", "10.0.0.1:8080", "10.0.0.9:30080", "10.0.0.9:2000")
	insert(t, c, want)
	got := flowsOf(t, c, "10.0.0.1")
	require.Len(t, got, 1)
	want.id = got[0].id
	require.NotZero(t, want.id)
	require.Equal(t, want, got[0])
	src, dst := got[0].Original()
	require.Equal(t, "192.0.2.1:1000 10.0.0.9:30080", fmt.Sprint(src, dst))
	src, dst = got[0].Reply()
	require.Equal(t, "10.0.0.1:8080 10.0.0.9:2000", fmt.Sprint(src, dst))
}

func TestExpected(t *testing.T) {
	c := openConn(t, newNetNS(t))
	master := makeFlow(tcp, "10.0.0.1:1000", "10.0.0.2:21", "", "")
	child := makeFlow(tcp, "10.0.0.1:1001", "10.0.0.2:40000", "", "")
	insert(t, c, master)
	insertWith(t, c, child, func(w *writer) {
		from := len(w.b)
		w.original(master)
		// The attribute that names the master is a tuple like the others.
		w.b[from+2] = 14
	})
	for _, f := range collect(t, c.All) {
		require.Equal(t, f.ClientPort == 1001, f.Expected)
	}
}

func TestDelete(t *testing.T) {
	ctx := context.Background()
	c := openConn(t, newNetNS(t))
	insert(t, c, mixed()...)
	flows := collect(t, c.All)
	for i, f := range flows {
		other := f
		other.id++
		require.NoError(t, c.Delete(ctx, other), "another entry with the same tuple")
		require.Len(t, collect(t, c.All), len(flows)-i)
		require.NoError(t, c.Delete(ctx, f))
		rest := collect(t, c.All)
		require.Len(t, rest, len(flows)-i-1)
		require.NotContains(t, rest, f)
		require.NoError(t, c.Delete(ctx, f), "gone already")
	}
	n, err := c.count(ctx)
	require.NoError(t, err)
	require.Equal(t, uint32(1), n, "what is none of ours is left")
}

// TestDeleteNothing: the kernel takes a deletion without a tuple for one of all.
func TestDeleteNothing(t *testing.T) {
	ctx := context.Background()
	c := openConn(t, newNetNS(t))
	insert(t, c, mixed()...)
	made := Flow{Protocol: tcp, Client: netip.MustParseAddr("10.0.0.1"), Server: netip.MustParseAddr("10.0.0.2"), ClientPort: 1000, ServerPort: 80}
	for _, f := range []Flow{{}, made} {
		require.ErrorContains(t, c.Delete(ctx, f), "not one that was read")
	}
	require.Len(t, collect(t, c.All), 12)
}

func TestZones(t *testing.T) {
	c := openConn(t, newNetNS(t))
	// A zone of one direction keeps entries apart in that direction only.
	zones := []zone{{0, zoneBoth}, {7, zoneBoth}, {8, zoneOriginal}, {9, zoneReply}}
	for _, z := range zones {
		f := makeFlow(tcp, "10.0.0.1:1000", "10.0.0.2:80", "", "")
		f.zone = z
		switch z.dir {
		case zoneOriginal:
			f.answered = netip.MustParseAddrPort("10.0.0.9:2000")
		case zoneReply:
			f.called = netip.MustParseAddrPort("10.96.0.1:80")
		}
		insert(t, c, f)
	}
	flows := collect(t, c.All)
	require.Len(t, flows, 4)
	for _, f := range flows {
		require.Contains(t, zones, f.zone)
	}
	for i, f := range flows {
		require.NoError(t, c.Delete(context.Background(), f))
		require.ElementsMatch(t, flows[i+1:], collect(t, c.All), "zone %+v", f.zone)
	}
}

func TestActive(t *testing.T) {
	c := openConn(t, newNetNS(t))
	active := func() bool {
		a, err := c.Active(context.Background())
		require.NoError(t, err)
		return a
	}
	require.False(t, active())
	insert(t, c, makeFlow(47, "10.0.0.1:0", "10.0.0.2:0", "", ""))
	require.True(t, active())
	require.Empty(t, collect(t, c.All))
	other := openConn(t, newNetNS(t))
	require.Empty(t, collect(t, other.All))
	a, err := other.Active(context.Background())
	require.NoError(t, err)
	require.False(t, a, "another namespace")
}

// many makes more entries than fit into a few datagrams.
func many(t testing.TB, c *Conn, n int) {
	t.Helper()
	for i := range n {
		insert(t, c, makeFlow(udp, fmt.Sprintf("10.1.%d.%d:1000", i>>8, i&255), "10.0.0.1:53", "", ""))
	}
}

func TestDeleteWhileListing(t *testing.T) {
	c := openConn(t, newNetNS(t))
	many(t, c, 2000)
	told := map[Flow]bool{}
	require.NoError(t, c.All(context.Background(), func(f Flow) {
		told[f] = true
		require.NoError(t, c.Delete(context.Background(), f))
	}))
	require.Len(t, told, 2000)
	require.Empty(t, collect(t, c.All))
}

// TestCancel gives up in the middle of a dump: the rest of it must not be taken
// for the answer to what is asked next.
func TestCancel(t *testing.T) {
	c := openConn(t, newNetNS(t))
	many(t, c, 2000)
	for _, list := range []func(context.Context, func(Flow)) error{
		c.All,
		func(ctx context.Context, fn func(Flow)) error {
			return c.Flows(ctx, netip.MustParseAddr("10.0.0.1"), fn)
		},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		told := 0
		require.ErrorIs(t, list(ctx, func(Flow) { told++; cancel() }), context.Canceled)
		require.Less(t, told, 2000)
		require.ErrorIs(t, list(ctx, func(Flow) { t.Error("told") }), context.Canceled)
		require.Len(t, collect(t, c.All), 2000)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Active(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, c.Delete(ctx, collect(t, c.All)[0]), context.Canceled)
	require.Len(t, collect(t, c.All), 2000)
}

// TestMemory: what a dump takes does not grow with the table.
func TestMemory(t *testing.T) {
	c := openConn(t, newNetNS(t))
	many(t, c, 10_000)
	var before, after runtime.MemStats
	n := 0
	runtime.ReadMemStats(&before)
	require.NoError(t, c.All(context.Background(), func(Flow) { n++ }))
	runtime.ReadMemStats(&after)
	require.Equal(t, 10_000, n)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(512<<10))
}

func TestOpenErrors(t *testing.T) {
	newNetNS(t)
	_, err := Open(-1)
	require.Error(t, err)
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	_, err = Open(fd)
	require.ErrorIs(t, err, unix.EINVAL, "no network namespace")

	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the rights are gone
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		_, err := Open(0)
		done <- err
	}()
	err = <-done
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, "CAP_NET_ADMIN")
}

func TestClosed(t *testing.T) {
	c, err := Open(newNetNS(t))
	require.NoError(t, err)
	insert(t, c, mixed()...)
	require.Len(t, collect(t, c.All), 12)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "twice")
}

// TestLostReplies floods the socket with answers that nobody reads. The kernel
// then says that some were lost, and the question is put again.
func TestLostReplies(t *testing.T) {
	c := openConn(t, newNetNS(t))
	insert(t, c, mixed()...)
	for range 20_000 {
		c.control.seq++
		c.control.begin(msgGetStats, unix.NLM_F_ACK, c.control.seq, unix.AF_UNSPEC)
		require.NoError(t, c.control.send(c.control.end()))
	}
	flooded := c.control
	n, err := c.count(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint32(13), n)
	require.NotSame(t, flooded, c.control, "the flood was too small to lose anything")
}
