package admin

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWorkloads names pods by what made them, as far as their labels say it.
func TestWorkloads(t *testing.T) {
	for pod, want := range map[[3]string]string{
		{"shop/web-5d4f-abcde", "pod-template-hash", "5d4f"}:               "shop/web",
		{"shop/web-abcde", "pod-template-hash", "5d4f"}:                    "shop/web-abcde",
		{"shop/db-0", "controller-revision-hash", "db-77"}:                 "shop/db",
		{"shop-2/db", "controller-revision-hash", "x"}:                     "shop-2/db",
		{"shop/import-28-x7", "batch.kubernetes.io/job-name", "import-28"}: "shop/import-28",
		{"shop/alone-1", "app", "alone"}:                                   "shop/alone-1",
	} {
		e := End{Pod: pod[0], Labels: map[string]string{pod[1]: pod[2]}}
		require.Equal(t, want, e.Workload(), pod)
	}
	require.Equal(t, "fd00::1", End{Addr: netip.MustParseAddr("fd00::1")}.Workload())
}
