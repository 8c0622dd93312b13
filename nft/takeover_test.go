package nft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTakeoverOfEarlierLayouts takes over from tables as earlier releases had them, with
// what these forbid.
func TestTakeoverOfEarlierLayouts(t *testing.T) {
	layouts, err := filepath.Glob("../testcases/soak/testdata/layout-*.nft")
	require.NoError(t, err)
	require.NotEmpty(t, layouts)
	for _, file := range layouts {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			ns := newNetNS(t)
			runNFT(t, ns, string(text), "-f", "-")
			forbids := strings.Contains(string(text), "set cut4 {")
			if forbids {
				runNFT(t, ns, "add element inet portcullis-a cut4 { 10.0.0.1 . udp . 53 . 10.0.0.2 . 4000 timeout 1h }", "-f", "-")
			}
			k := openTestKernel(t, ns)
			e := NewEnforcer(everything, k)
			require.NoError(t, e.Takeover(t.Context(), onTrialToo(shop())))
			requireVerified(t, e, onTrialToo(shop()))
			tables, err := k.Tables(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"portcullis-b"}, tables)
			if forbids {
				requireForbidden(t, k, e.Table(), []Tuple{{addr("10.0.0.1"), addr("10.0.0.2"), 17, 53, 4000}}, 59*time.Minute, time.Hour)
			}
		})
	}
}
