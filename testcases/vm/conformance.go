package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/portcullis-netpol/portcullis/testcases/vm/plan"
)

// setConformance is the set that runs the upstream suite.
const setConformance = "conformance"

// conformanceCPUs is more than most machines give to a test. The upstream server ends
// an SCTP connection at once, and the upstream client takes it for refused if it has
// not sent anything by then: it should not have to wait for a processor. With 2 of
// them two probes out of three are lost that way, with 4 one out of four. The specs
// ask for up to ten seconds, and then once more.
const conformanceCPUs = 4

// sctpSpecs matches the specs of the upstream suite that need SCTP sockets. The others
// do not differ between kernels that have them and kernels that have none.
const sctpSpecs = "SCTPConnectivity"

// Where the programs and the agent's rights are, in the module as in the guest.
const (
	conformanceBinaries  = "bin/conformance"
	conformanceManifests = "manifests"
)

// conformancePrograms are what a cluster and the suite need: the command itself, and
// what it builds.
var conformancePrograms = []string{"conformance", "agnhost", "ginkgo", "kube", "portcullis", "suite.test"}

// conformanceSuite is the set conformance.
func conformanceSuite(env []string) suite {
	return suite{name: setConformance, upstream: true, tests: sctpSpecs, env: env}
}

// buildConformance builds the programs as "make conformance" does, in the same place:
// what is there already is not built again.
func buildConformance(ctx context.Context, module string) error {
	program := filepath.Join(module, conformanceBinaries, "conformance")
	for _, args := range [][]string{
		{"go", "build", "-o", program, "./cmd/conformance"},
		{program, "--build-only"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = filepath.Join(module, "testcases/conformance")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build the conformance programs: %w", err)
		}
	}
	return nil
}

// conformance adds the programs and says how to run them: one spec at a time, which
// keeps the emulated processors busy.
func (im *image) conformance(ctx context.Context, s suite, module string) (plan.Run, error) {
	bin := path.Join("/src", conformanceBinaries)
	for _, name := range conformancePrograms {
		if err := im.executable(ctx, filepath.Join(module, conformanceBinaries, name), path.Join(bin, name)); err != nil {
			return plan.Run{}, err
		}
	}
	if err := im.tree(filepath.Join(module, conformanceManifests), path.Join("/src", conformanceManifests)); err != nil {
		return plan.Run{}, err
	}
	const logs = "/tmp/conformance"
	return plan.Run{
		Name: s.name, Path: path.Join(bin, "conformance"), Dir: "/src",
		Args:  []string{"--focus", s.tests, "--procs", "1", "--artifacts", logs},
		Limit: s.limit,
		Logs:  []string{logs + "/*.log", logs + "/spec-*/explain.txt"},
		Env:   append([]string{"PORTCULLIS_CONFORMANCE_BINARIES=" + bin}, s.env...),
	}, nil
}
