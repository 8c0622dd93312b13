package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/vm/plan"
)

// suite is a test binary and what it runs, or the upstream suite.
type suite struct {
	name  string
	pkg   string   // folder of the package, relative to the module
	data  []string // what its tests read there
	tests string   // for -test.run
	env   []string

	upstream bool          // not a test binary; tests is for --focus
	limit    time.Duration // of that
}

// suites returns what a set runs.
func suites(set, module string, slowdown int) ([]suite, error) {
	cases, waits := ".*", fmt.Sprintf("PORTCULLIS_SLOWDOWN=%d", slowdown)
	nft, lab, conntrack, spoof := allNFTTests, ".", ".", "."
	var other string
	switch set {
	case "ci":
		names, err := selectCases(filepath.Join(module, "testcases/cases"))
		if err != nil {
			return nil, err
		}
		cases, other = "("+strings.Join(names, "|")+")", "|^TestIPVS$"
		nft, lab, conntrack, spoof = ciNFTTests, ciLabTests, ciConntrackTests, ciSpoofTests
	case "all":
		other = otherPacketTests
	case setConformance:
		return []suite{conformanceSuite([]string{waits})}, nil
	default:
		return nil, fmt.Errorf("unknown set %q: want ci, all or %s", set, setConformance)
	}
	env := []string{waits, "PORTCULLIS_IPVS=required"}
	sockets := append(slices.Clone(env), "PORTCULLIS_SCTP=sockets")
	packets := append(slices.Clone(env), "PORTCULLIS_SCTP=packets")
	return []suite{
		{name: "nft", pkg: "nft", data: []string{"testdata"}, tests: nft, env: env},
		{name: "nflog", pkg: "nft/nflog", tests: ".", env: env},
		{name: "conntrack", pkg: "nft/conntrack", tests: conntrack, env: env},
		{name: "spoof", pkg: "nft/spoof", tests: spoof, env: env},
		{name: "node", pkg: "agent/node", tests: ".", env: env},
		{name: "lab", pkg: "testcases/lab", tests: lab, env: sockets},
		{name: "lab-packets", pkg: "testcases/lab", tests: sctpPacketTest, env: packets},
		{
			name: "testcases", pkg: "testcases", data: []string{"cases"}, env: sockets,
			tests: "^TestCases$/^" + cases + "$/^(routed|bridged)$" + other,
		},
	}, nil
}

// binary is the file name of a suite's test binary.
func (s suite) binary() string { return path.Base(s.pkg) + ".test" }

// build compiles what the guest runs into a folder: its init, and the tests,
// linked statically, since there is no libc there.
func build(ctx context.Context, module, dir string, list []suite) error {
	compile := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stderr = module, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
		}
		return nil
	}
	const strip = "-s -w"
	if err := compile("build", "-trimpath", "-ldflags", strip, "-o", filepath.Join(dir, "init"), "./testcases/vm/guest"); err != nil {
		return err
	}
	for _, s := range list {
		if s.upstream {
			if err := buildConformance(ctx, module); err != nil {
				return err
			}
			continue
		}
		err := compile("test", "-c", "-trimpath", "-ldflags", strip, "-o", filepath.Join(dir, s.binary()), "./"+s.pkg)
		if err != nil {
			return err
		}
	}
	return nil
}

// assemble writes the initramfs.
func assemble(ctx context.Context, file, module, built string, k *kernel, list []suite) error {
	im, err := newImage(file)
	if err != nil {
		return err
	}
	defer im.file.Close() // for errors; finish has closed it otherwise
	if err := im.add(filepath.Join(built, "init"), "/init", 0o755); err != nil {
		return err
	}
	if err := im.program(ctx, "nft"); err != nil {
		return err
	}
	p := plan.Plan{Modules: im.kernel(k)}
	for _, s := range list {
		if s.upstream {
			r, err := im.conformance(ctx, s, module)
			if err != nil {
				return err
			}
			p.Runs = append(p.Runs, r)
			continue
		}
		binary, dir := "/tests/"+s.binary(), filepath.Join("/src", s.pkg)
		im.dir(dir)
		if !slices.ContainsFunc(p.Runs, func(r plan.Run) bool { return r.Path == binary }) {
			if err := im.suite(s, module, built, binary, dir); err != nil {
				return err
			}
		}
		// The machine has a limit of its own.
		args := []string{"-test.v", "-test.timeout", "0", "-test.run", s.tests}
		p.Runs = append(p.Runs, plan.Run{Name: s.name, Path: binary, Args: args, Dir: dir, Env: s.env})
	}
	if err := im.plan(p); err != nil {
		return err
	}
	return im.finish()
}

// suite adds a test binary and what its tests read.
func (im *image) suite(s suite, module, built, binary, dir string) error {
	if err := im.add(filepath.Join(built, s.binary()), binary, 0o755); err != nil {
		return err
	}
	for _, d := range s.data {
		if err := im.tree(filepath.Join(module, s.pkg, d), filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	return nil
}
