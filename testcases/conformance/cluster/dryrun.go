package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// DryRun has the API server judge what the manifests install, and what the Helm chart
// does with the values that its tests keep, as `kubectl apply --dry-run=server` does:
// strictly, with admission, and without storing anything. It returns how many objects
// that were. The agents have to be started before, as their namespace must exist.
func (c *Cluster) DryRun(ctx context.Context) (objects int, err error) {
	files, err := filepath.Glob(filepath.Join(c.Manifests, "check", "testdata", "*.yaml"))
	if err != nil {
		return 0, err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".values.yaml") })
	if len(files) == 0 {
		return 0, fmt.Errorf("%s has no rendered charts", c.Manifests)
	}
	apply := []string{"apply", "--dry-run=server", "--validate=strict"}
	var lines []string
	for _, args := range [][]string{
		{"--kustomize=" + c.Manifests},
		{"--filename=" + strings.Join(files, ",")},
	} {
		out, err := c.Kubectl(ctx, append(apply, args...)...)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(out) {
			// Other lines are warnings: that the namespace was not made by kubectl.
			if strings.HasSuffix(line, " (server dry run)\n") {
				lines = append(lines, line)
			}
		}
	}
	daemons := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "daemonset.apps/portcullis ") {
			daemons++
		}
	}
	if want := 1 + len(files); daemons != want {
		return 0, fmt.Errorf("dry run of %d agents, want %d:\n%s", daemons, want, strings.Join(lines, ""))
	}
	return len(lines), nil
}
