package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRenderGolden shows the rules of each node of the shop.
func TestRenderGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"node-1":        {"--node", "node-1"},
		"node-2":        {"--node", "node-2"},
		"node-1-reject": {"--node", "node-1", "--deny", "reject"},
		"node-1-allow":  {"--node", "node-1", "--pod-to-node", "allow"},
		"node-9":        {"--node", "node-9"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, _ := run(t, append([]string{"render", "-f", "testdata/shop"}, args...)...)
			require.Equal(t, exitOK, code)
			golden(t, "render/"+name+".nft", stdout)
		})
	}
}

// TestRenderWarnings names the pods of the node that have no rules, and counts the
// peers that are missing, on stderr.
func TestRenderWarnings(t *testing.T) {
	_, stdout, stderr := run(t, "render", "-f", "testdata/shop", "--node", "node-1")
	require.Equal(t, "portcullis: warning: pod shop/import-0 of node node-1 has no address; there are no rules for it\n", stderr)
	require.NotContains(t, stdout, "warning")
	_, _, stderr = run(t, "render", "-f", "testdata/shop", "--node", "node-2")
	require.Equal(t, "portcullis: warning: 1 pods of other nodes have no address and cannot be among the peers\n", stderr)
}

// TestRenderSeveralPaths reads files and directories together.
func TestRenderSeveralPaths(t *testing.T) {
	_, whole, _ := run(t, "render", "-f", "testdata/shop", "--node", "node-1")
	_, parts, _ := run(t, "render", "-f", "testdata/shop/policies.yaml", "-f", "testdata/shop/pods.yaml", "--node", "node-1")
	require.Equal(t, whole, parts)
}
