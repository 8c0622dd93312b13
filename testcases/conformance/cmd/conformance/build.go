package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// binaries are the programs that a run needs.
type binaries struct {
	dir  string // where they are
	root string // of the main module
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// build builds the programs, which the go command finds to be up to date when nothing has
// changed: those of a cluster, unless there is one already, and those of the suite, unless
// it is not to run. It works in the module that the current folder is in. Where
// binariesVariable says that all is built, neither Go nor the sources are needed, but for
// the manifests.
func build(ctx context.Context, cluster, suite bool) (binaries, error) {
	if dir := os.Getenv(binariesVariable); dir != "" {
		return binaries{dir: dir, root: filepath.Dir(filepath.Dir(dir))}, nil
	}
	module, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return binaries{}, err
	}
	if filepath.Base(module) != "conformance" {
		return binaries{}, errors.New("run this in the folder testcases/conformance")
	}
	root := filepath.Dir(filepath.Dir(module))
	b := binaries{dir: filepath.Join(root, "bin", "conformance"), root: root}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return b, err
	}
	fmt.Println("Building (the first time it takes minutes) ...")
	type target struct {
		in   string
		args []string
		env  []string
	}
	programs := []string{"build", "-ldflags=-s -w", "-o", b.dir + "/"}
	var targets []target
	if suite {
		programs = append(programs, "github.com/onsi/ginkgo/v2/ginkgo")
		targets = append(targets, target{module, []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", b.path("suite.test"), "./suite"}, nil})
	}
	if cluster {
		programs = append(programs, "./cmd/kube")
		// Containers have nothing but their program, so it has to be static.
		static := []string{"CGO_ENABLED=0"}
		targets = append(targets,
			target{b.root, []string{"build", "-o", b.dir + "/", "./cmd/portcullis"}, static},
			target{module, []string{"build", "-ldflags=-s -w", "-o", b.dir + "/", "./cmd/agnhost"}, static})
	}
	targets = append(targets, target{module, programs, nil})
	for _, c := range targets {
		cmd := exec.CommandContext(ctx, "go", c.args...)
		cmd.Dir = c.in
		cmd.Env = slices.Concat(cmd.Environ(), goCompiles, c.env)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return b, fmt.Errorf("go %s: %w", strings.Join(c.args, " "), errors.Join(err, ctx.Err()))
		}
	}
	return b, nil
}

// goCompiles has the compiler collect less garbage, which is a quarter of its work.
var goCompiles = []string{"GOGC=400"}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
