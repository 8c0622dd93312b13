package agent

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// maxAuditRows is how many kinds of flows the summary has room for.
const maxAuditRows = 10_000

// audits sums up what policies in audit mode would have denied. It is safe for
// concurrent use.
type audits struct {
	since time.Time

	mu        sync.Mutex
	logged    uint64
	forgotten uint64
	rows      *recent[auditKind, admin.AuditRow]
}

// auditKind is what a row is about.
type auditKind struct {
	direction, source, destination, protocol string
	port                                     uint16
}

func newAudits(since time.Time) *audits {
	return &audits{since: since, rows: newRecent[auditKind, admin.AuditRow](maxAuditRows)}
}

func (a *audits) add(d admin.Denial) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logged++
	row, forgotten := a.rows.use(auditKind{d.Direction, d.Source.Workload(), d.Destination.Workload(), d.Protocol, d.Port})
	if forgotten != nil {
		a.forgotten += forgotten.Count
	}
	if row.Count == 0 {
		row.First = d.Time
	}
	*row = admin.AuditRow{
		Direction: d.Direction, Source: d.Source, Destination: d.Destination, Protocol: d.Protocol, Port: d.Port,
		Policies: d.Policies, Closest: d.Closest, Count: row.Count + 1, First: row.First, Last: d.Time,
	}
}

// summary returns the rows, and how many packets they are made of.
func (a *audits) summary() admin.Audit {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := admin.Audit{Since: a.since, Logged: a.logged, Forgotten: a.forgotten, Rows: []admin.AuditRow{}}
	for row := range a.rows.values() {
		s.Rows = append(s.Rows, *row)
	}
	slices.SortStableFunc(s.Rows, func(x, y admin.AuditRow) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), y.Last.Compare(x.Last), cmp.Compare(nameOf(x.Source), nameOf(y.Source)),
			cmp.Compare(nameOf(x.Destination), nameOf(y.Destination)), cmp.Compare(x.Port, y.Port))
	})
	return s
}
