package main

import (
	"strings"
	"testing"
)

// TestQuickStartFlags: the quick start takes only flags that say what its cluster is like.
func TestQuickStartFlags(t *testing.T) {
	for args, want := range map[string]bool{
		"--quick-start x": true, "--quick-start x --topology bridge --ip-family 6 --kube-proxy iptables --artifacts y": true,
		"--quick-start x --deny drop": false, "--quick-start x --own": false, "--quick-start x --kubeconfig y": false,
		"--quick-start x --all": false, "--quick-start x --agent none": false, "--quick-start x --junit y": false,
	} {
		if _, err := parse(strings.Fields(args)); (err == nil) != want {
			t.Errorf("%s: %v", args, err)
		}
	}
}
