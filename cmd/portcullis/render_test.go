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
		"node-1-off":    {"--node", "node-1", "--quarantine", "off"},
		"node-9":        {"--node", "node-9"},
		"node-9-blocks": {"--node", "node-9", "--pod-cidrs", "10.244.9.0/24,fd00:10:244:9::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, _ := run(t, append([]string{"render", "-f", "testdata/shop"}, args...)...)
			require.Equal(t, exitOK, code)
			golden(t, "render/"+name+".nft", stdout)
		})
	}
}

// TestRenderWarnings names the pods of the node that have no rules, and counts the
// peers that are missing, on stderr, and tells where there is no quarantine for want
// of blocks.
func TestRenderWarnings(t *testing.T) {
	_, stdout, stderr := run(t, "render", "-f", "testdata/shop", "--node", "node-1")
	require.Equal(t, "portcullis: warning: pod shop/import-0 of node node-1 has no address; there are no rules for it\n", stderr)
	require.NotContains(t, stdout, "warning")
	_, _, stderr = run(t, "render", "-f", "testdata/shop", "--node", "node-2")
	require.Equal(t, "portcullis: warning: 1 pods of other nodes have no address and cannot be among the peers\n", stderr)

	const (
		unknown  = "portcullis: warning: these files have Nodes, but none named \"node-9\"; an agent that follows them waits for it and writes nothing\n"
		noBlocks = "portcullis: warning: neither these files (Node node-9, spec.podCIDRs) nor --pod-cidrs say where pods get their addresses from; no new pod is held back\n"
		rest     = "portcullis: warning: no pod of these files is on node \"node-9\" (spec.nodeName)\nportcullis: warning: 1 pods of other nodes have no address and cannot be among the peers\n"
	)
	for _, c := range []struct {
		nodes, flags []string
		says         string
	}{
		{nil, nil, noBlocks + rest},
		{nil, []string{"--pod-cidrs", "10.244.9.0/24"}, rest},
		{nil, []string{"--quarantine", "off"}, rest},
		{[]string{"-f", "testdata/shop/nodes.yaml"}, nil, unknown + noBlocks + rest},
		{[]string{"-f", "testdata/shop/nodes.yaml"}, []string{"--quarantine", "off"}, unknown + rest},
	} {
		args := append([]string{"render", "-f", "testdata/shop/policies.yaml", "-f", "testdata/shop/pods.yaml", "--node", "node-9"}, c.nodes...)
		_, _, stderr = run(t, append(args, c.flags...)...)
		require.Equal(t, c.says, stderr, "%v %v", c.nodes, c.flags)
	}
}

// TestRenderQuarantine takes the blocks of the flag before those of the Node, and none
// of either without quarantine.
func TestRenderQuarantine(t *testing.T) {
	for _, c := range []struct {
		flags   []string
		has, no []string
	}{
		{nil, []string{"10.244.1.0/24", "fd00:10:244:1::/64"}, []string{"fd00:10:244:9::"}},
		{[]string{"--pod-cidrs", "fd00:10:244:9::7/64"}, []string{"fd00:10:244:9::/64"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		{[]string{"--quarantine", "off"}, nil, []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		{[]string{"--quarantine", "off", "--pod-cidrs", "fd00:10:244:9::/64"}, nil, []string{"10.244.1.0/24", "fd00:10:244:9::"}},
	} {
		_, stdout, _ := run(t, append([]string{"render", "-f", "testdata/shop", "--node", "node-1"}, c.flags...)...)
		for _, text := range c.has {
			require.Contains(t, stdout, text, "%v", c.flags)
		}
		for _, text := range c.no {
			require.NotContains(t, stdout, text, "%v", c.flags)
		}
	}
}

// TestRenderSeveralPaths reads files and directories together.
func TestRenderSeveralPaths(t *testing.T) {
	_, whole, _ := run(t, "render", "-f", "testdata/shop", "--node", "node-1")
	_, parts, _ := run(t, "render", "-f", "testdata/shop/policies.yaml", "-f", "testdata/shop/pods.yaml", "-f", "testdata/shop/nodes.yaml", "--node", "node-1")
	require.Equal(t, whole, parts)
}
