package progress

import (
	"reflect"
	"testing"
)

// The lines are those of the upstream suite.
const suiteLog = `I1121 10:22:00.000 1 test_helper.go:69] waiting for HTTP servers (ports 80 and/or 81) to become ready
I1121 10:22:01.000 1 probe.go:99] Validation of netpol-x-1/b -> netpol-y-2/a FAILED !!!
I1121 10:22:01.000 1 probe.go:102] Expected allowed pod connection was instead BLOCKED --- run 'kubectl exec b -n netpol-x-1 -- /agnhost connect 10.96.1.2:80 --timeout=3s --protocol=tcp'
I1121 10:22:02.000 1 kubemanager.go:277] creating network policy netpol-x-1/deny
I1121 10:22:03.000 1 probe.go:99] Validation of netpol-x-1/b -> netpol-x-1/b FAILED !!!
I1121 10:22:03.000 1 probe.go:100] error <nil>
I1121 10:22:03.000 1 probe.go:104] Expected blocked pod connection was instead ALLOWED --- run 'kubectl exec b -n netpol-x-1 -- /agnhost connect 10.96.1.1:80 --timeout=3s --protocol=tcp'
I1121 10:22:03.000 1 probe.go:99] Validation of netpol-y-2/a -> netpol-x-1/b FAILED !!!
I1121 10:22:03.000 1 probe.go:100] error <nil>
I1121 10:22:03.000 1 probe.go:104] Expected blocked pod connection was instead ALLOWED --- run 'kubectl exec a -n netpol-y-2 -- /agnhost connect [fd00:10:96::7]:81 --timeout=3s --protocol=udp'
I1121 10:22:04.000 1 test_helper.go:120] failed first probe 1 wrong results ... retrying (SECOND TRY)
`

func TestLogFindsTheCellsThatCount(t *testing.T) {
	var found []Cell
	l := &Log{Found: func(c Cell) { found = append(found, c) }}
	for i := range len(suiteLog) { // in pieces
		if _, err := l.Write([]byte{suiteLog[i]}); err != nil {
			t.Fatal(err)
		}
	}
	want := []Cell{{From: "netpol-y-2/a", To: "netpol-x-1/b", Expected: "blocked", Service: "udp/81", Step: 1}}
	if !reflect.DeepEqual(found, want) {
		t.Errorf("found %+v, want %+v", found, want)
	}
}
