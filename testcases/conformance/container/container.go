package container

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
)

// Config says what a container is made of.
type Config struct {
	// Mountpoint is a folder. Containers may share it: each sees its own root there, and
	// nobody else sees any.
	Mountpoint string
	// Programs are the image: paths in the container, and the files that are there.
	Programs map[string]string
	// Files are small files: paths in the container, and what is in them.
	Files    map[string][]byte
	Volumes  []Volume
	Security *corev1.SecurityContext
}

// Volume is a folder that a container shares with others.
type Volume struct {
	Path     string // in the container
	Source   string // here
	ReadOnly bool
}

// Container is where programs can be started, the first one as well as those of exec.
type Container struct {
	root    string
	starter *process.Starter
}

// New makes a container, in which nothing runs. The caller closes it.
func New(cfg Config) (*Container, error) {
	if err := check(cfg.Security); err != nil {
		return nil, err
	}
	keep, err := Capabilities(cfg.Security)
	if err != nil {
		return nil, err
	}
	starter, err := process.NewPreparedStarter(func() error {
		if err := cfg.mountRoot(); err != nil {
			return fmt.Errorf("root folder: %w", err)
		}
		var noMore error
		if s := cfg.Security; s != nil && s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
			noMore = process.ForbidNewPrivileges()
		}
		return errors.Join(process.KeepCapabilities(keep), noMore)
	})
	if err != nil {
		return nil, err
	}
	return &Container{root: cfg.Mountpoint, starter: starter}, nil
}

// Start starts a program of the container: paths are the container's.
func (c *Container) Start(spec process.Spec) (*process.Process, error) {
	spec.Root, spec.Dir = c.root, "/"
	return c.starter.Start(spec)
}

// Close ends what still runs in the container and lets go of it.
func (c *Container) Close() { c.starter.Close() }
