package testcases

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/portcullis-netpol/portcullis"

// arrows says what each package may import, directly or not, of this module and
// of what is a matter of design. A prefix ends with a slash or names one package.
var arrows = []struct {
	pkg string
	// own lists the packages of this module that may be reached.
	own []string
	// never lists what must not be reached.
	never []string
}{
	{pkg: "policy/ir", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/", "golang.org/"}},
	{pkg: "policy", own: []string{"policy/ir"}, never: []string{"k8s.io/client-go/", "github.com/google/nftables", "github.com/vishvananda/", "github.com/mdlayher/"}},
	{pkg: "policy/evaluate", own: nil, never: []string{"k8s.io/client-go/", "github.com/google/nftables", "github.com/vishvananda/", "github.com/mdlayher/"}},
	{pkg: "policy/matrix", own: []string{"policy/evaluate"}, never: []string{"k8s.io/client-go/", "github.com/google/nftables", "github.com/vishvananda/", "github.com/mdlayher/"}},
	{pkg: "policy/manifest", own: nil, never: []string{"k8s.io/client-go/", "github.com/google/nftables", "github.com/vishvananda/", "github.com/mdlayher/"}},
	{pkg: "nft", own: []string{"policy/ir", "nft/watch"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/vishvananda/"}},
	{pkg: "testcases/lab", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/"}},
	{pkg: "nft/watch", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/google/nftables", "github.com/vishvananda/"}},
	{pkg: "nft/conntrack", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/"}},
	{pkg: "nft/spoof", own: []string{"nft/watch"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/vishvananda/"}},
	{pkg: "nft/nflog", own: []string{"nft/watch"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/google/nftables", "github.com/vishvananda/"}},
	{pkg: "agent/socket", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/", "golang.org/"}},
	{pkg: "agent/admin", own: []string{"agent/socket"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/", "golang.org/"}},
	{pkg: "agent/cni", own: []string{"agent/socket"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/"}},
	{pkg: "agent/node", own: nil, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/google/nftables"}},
	{pkg: "agent/lean", own: nil, never: []string{"github.com/google/nftables", "github.com/vishvananda/", "github.com/mdlayher/"}},
	{pkg: "agent", own: []string{"policy", "policy/ir", "policy/manifest", "policy/evaluate", "nft", "nft/watch", "nft/conntrack", "nft/spoof", "nft/nflog",
		"agent/cni", "agent/node", "agent/admin", "agent/socket"}, never: nil},
	// It runs for every pod that starts: small, and without what an agent needs.
	{pkg: "cmd/portcullis-cni", own: []string{"agent/cni", "agent/socket"}, never: []string{"k8s.io/", "sigs.k8s.io/", "github.com/google/nftables"}},
}

// TestImportArrows keeps the direction in which packages may import each other.
func TestImportArrows(t *testing.T) {
	for _, a := range arrows {
		t.Run(a.pkg, func(t *testing.T) {
			t.Parallel()
			list := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+a.pkg)
			list.Dir = ".."
			out, err := list.Output()
			require.NoError(t, err, "go list")
			for _, dep := range strings.Fields(string(out)) {
				if own, ok := strings.CutPrefix(dep, module+"/"); ok {
					require.True(t, own == a.pkg || slices.Contains(a.own, own), "%s must not reach %s", a.pkg, own)
					continue
				}
				for _, never := range a.never {
					hit := dep == strings.TrimSuffix(never, "/") || strings.HasPrefix(dep, strings.TrimSuffix(never, "/")+"/")
					require.False(t, hit, "%s must not reach %s", a.pkg, dep)
				}
			}
		})
	}
}
