package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/cluster"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/conformance/quickstart"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// How long a command of the quick start may take, and how long it may take to do what the
// document says.
const (
	commandTimeout     = 2 * time.Minute
	quickStartPatience = 30 * time.Second
)

// runQuickStart does in a new cluster, without agents, what the document tells its reader to.
func (r *runner) runQuickStart(ctx context.Context, dir string) error {
	document, err := os.ReadFile(r.quickStart)
	if err != nil {
		return err
	}
	steps, err := quickstart.Parse(string(document))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errFailed, r.quickStart, err)
	}
	begin := time.Now()
	cfg, err := r.clusterConfig(dir, r.combination)
	if err != nil {
		return err
	}
	cfg.DNS = true // people use names
	made, ctx, err := cluster.Start(ctx, cfg)
	if err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	defer made.Stop()
	fmt.Printf("Cluster of 2 nodes up in %.0f s: pods %s, IPv%s first, kube-proxy %s\n", time.Since(begin).Seconds(), r.topology, r.family, r.proxy)
	shell, err := r.newShell(made, filepath.Join(dir, "home"))
	if err != nil {
		return err
	}
	defer os.RemoveAll(shell.home)
	err = quickstart.Run(ctx, quickstart.Config{Shell: shell.run, Patience: quickStartPatience, Out: os.Stdout}, steps)
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", errFailed, r.quickStart, err)
	} else {
		fmt.Printf("Quick start: %d commands did what %s says, in %.0f s with the cluster\n", len(steps), r.quickStart, time.Since(begin).Seconds())
	}
	return explain(ctx, err)
}

// shell is where a person types.
type shell struct {
	runner  *runner
	cluster *cluster.Cluster
	home    string
	env     []string
}

// newShell makes a home folder with the programs under the names that people use.
func (r *runner) newShell(made *cluster.Cluster, home string) (*shell, error) {
	bin := filepath.Join(home, "bin")
	err := os.MkdirAll(bin, 0o755)
	for name, program := range map[string]string{"kubectl": "kube", "portcullis": "portcullis", "kubectl-portcullis": "portcullis"} {
		if err == nil {
			err = os.Symlink(r.binaries.path(program), filepath.Join(bin, name))
		}
	}
	if err != nil {
		_ = os.RemoveAll(home)
		return nil, err
	}
	return &shell{runner: r, cluster: made, home: home, env: []string{
		"HOME=" + home, "KUBECONFIG=" + made.Kubeconfig, "PATH=" + bin + ":" + os.Getenv("PATH"),
	}}, nil
}

// run runs a command line in the folder of the repository.
func (s *shell) run(ctx context.Context, command string) (int, string, error) {
	limit, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out bytes.Buffer
	err := s.runner.starter.Run(limit, process.Spec{
		Name: "shell", Path: "/bin/sh", Args: []string{"-c", command}, Env: s.env, Dir: s.runner.binaries.root,
		NetNS: s.cluster.NetNS(lab.Outside), Stdout: &out, Stderr: &out,
	})
	var exit *exec.ExitError
	switch {
	case limit.Err() != nil:
		return 0, "", fmt.Errorf("no end: %w: %s", limit.Err(), out.String())
	case err != nil && !errors.As(err, &exit):
		return 0, "", err
	}
	return process.ExitCode(err), out.String(), nil
}
