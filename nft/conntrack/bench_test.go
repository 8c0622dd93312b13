package conntrack

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// benchTables runs a benchmark with tables of three sizes, half of each family,
// in which one address of each has ten flows.
func benchTables(b *testing.B, run func(b *testing.B, c *Conn)) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := openConn(b, newNetNS(b))
			for i := range n / 2 {
				host := i
				if i < 10 {
					host = 0
				}
				insert(b, c,
					makeFlow(unix.IPPROTO_UDP, fmt.Sprintf("10.%d.%d.%d:%d", 1+host>>16, host>>8&255, host&255, 1000+i%50000), "10.0.0.1:53", "", ""),
					makeFlow(unix.IPPROTO_UDP, fmt.Sprintf("[fd00::%x:%x]:%d", 1+host>>16, host&0xffff, 1000+i%50000), "[fd00::1]:53", "", ""))
			}
			b.ReportAllocs()
			b.ResetTimer()
			run(b, c)
		})
	}
}

// BenchmarkFlows lists the flows of one address, by the kernel's filter for one
// family or the other, and by a dump of everything.
func BenchmarkFlows(b *testing.B) {
	for _, c := range []struct {
		name, addr string
		trust      trust
	}{
		{"IPv4/filtered", "10.1.0.0", trusted}, {"IPv4/whole", "10.1.0.0", distrusted}, {"IPv6/whole", "fd00::1:0", distrusted},
	} {
		b.Run(c.name, func(b *testing.B) {
			addr := netip.MustParseAddr(c.addr)
			benchTables(b, func(b *testing.B, conn *Conn) {
				conn.filters[familyOf(addr)] = c.trust
				for b.Loop() {
					if n := len(flowsOf(b, conn, c.addr)); n != 10 {
						b.Fatal(n, "flows")
					}
				}
			})
		})
	}
}

// BenchmarkAll lists everything.
func BenchmarkAll(b *testing.B) {
	benchTables(b, func(b *testing.B, c *Conn) {
		for b.Loop() {
			if err := c.All(context.Background(), func(Flow) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDelete deletes 1,000 entries one by one.
func BenchmarkDelete(b *testing.B) {
	c := openConn(b, newNetNS(b))
	for b.Loop() {
		b.StopTimer()
		many(b, c, 1000)
		var flows []Flow
		if err := c.All(context.Background(), func(f Flow) { flows = append(flows, f) }); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, f := range flows {
			if err := c.Delete(context.Background(), f); err != nil {
				b.Fatal(err)
			}
		}
	}
}
