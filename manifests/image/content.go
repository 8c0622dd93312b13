package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Where the files are in the image. install-cni copies the plugin from beside the
// command.
const (
	binDir   = "usr/local/bin"
	sbomPath = "usr/share/sbom/portcullis.cdx.json"
)

// programs are what is built of the source module, in the order of their names.
var programs = []string{"portcullis", "portcullis-cni"}

// file is a file of the image; its owner is root.
type file struct {
	path string // without a slash at the start
	mode fs.FileMode
	data []byte
}

// content is what is in the image of one platform.
type content struct {
	binaries []file
	sbom     file
}

// build builds the programs for a platform and describes them.
func build(ctx context.Context, o *options, platform string) (_ *content, err error) {
	dir, err := os.MkdirTemp("", "portcullis-image-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=" + o.version, "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = o.source
	// What would change the binaries is as Go has it by default; GOFLAGS would fall
	// back to the user's if it were empty.
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch,
		"GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), errors.Join(err, ctx.Err()))
	}
	c := &content{}
	for _, p := range programs {
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return nil, err
		}
		c.binaries = append(c.binaries, file{path: binDir + "/" + p, mode: 0o755, data: data})
	}
	text, err := describe(o.version, c.binaries)
	if err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	c.sbom = file{path: sbomPath, mode: 0o644, data: text}
	return c, nil
}

// write writes the files below a directory.
func (c *content) write(root string) error {
	for _, f := range append(c.binaries, c.sbom) {
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}
