package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

func auditOf(source admin.End, port uint16, at int64) admin.Denial {
	return admin.Denial{
		Time: time.Unix(at, 0), Reason: admin.ReasonAudit, Direction: "egress", Source: source, Protocol: "tcp", Port: port,
		Destination: admin.End{Addr: netip.MustParseAddr(dbAddr), Pod: "shop/db"}, Policies: []string{"shop/web"},
	}
}

// TestAuditRows sums up the pods of a workload, each port by itself.
func TestAuditRows(t *testing.T) {
	a := newAudits(time.Unix(0, 0))
	web := func(name string) admin.End {
		return admin.End{Addr: netip.MustParseAddr(webAddr), Pod: "shop/" + name, Labels: map[string]string{"pod-template-hash": "5d4f"}}
	}
	a.add(auditOf(web("web-5d4f-abcde"), 80, 1))
	a.add(auditOf(web("web-5d4f-abcde"), 81, 2))
	a.add(auditOf(web("web-5d4f-fghij"), 80, 3))
	s := a.summary()
	require.EqualValues(t, 3, s.Logged)
	require.Len(t, s.Rows, 2)
	require.EqualValues(t, 2, s.Rows[0].Count)
	require.Equal(t, "shop/web-5d4f-fghij", s.Rows[0].Source.Pod)
	require.Equal(t, []time.Time{time.Unix(1, 0), time.Unix(3, 0)}, []time.Time{s.Rows[0].First, s.Rows[0].Last})
	require.EqualValues(t, 81, s.Rows[1].Port)
}

// TestAuditRowsAreBounded forgets those that were not seen for longest, and counts them.
func TestAuditRowsAreBounded(t *testing.T) {
	a := newAudits(time.Unix(0, 0))
	first := admin.End{Addr: netip.MustParseAddr("192.0.2.1")}
	a.add(auditOf(first, 1, 1))
	a.add(auditOf(first, 2, 1))
	a.add(auditOf(first, 2, 1))
	for port := range uint16(maxAuditRows - 2) {
		a.add(auditOf(first, 10+port, 2))
	}
	a.add(auditOf(first, 1, 3)) // younger than the second
	require.Zero(t, a.summary().Forgotten)
	a.add(auditOf(first, 20_000, 4))
	s := a.summary()
	require.EqualValues(t, 2, s.Forgotten)
	require.Len(t, s.Rows, maxAuditRows)
	require.EqualValues(t, 1, s.Rows[0].Port)
	sum := s.Forgotten
	for _, r := range s.Rows {
		sum += r.Count
	}
	require.Equal(t, s.Logged, sum)
}
