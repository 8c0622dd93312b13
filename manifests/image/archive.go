package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Annotations that tell what the image of a layout is called: the first the tag, the
// second the full name for containerd, which would make one up.
const (
	annotationTag  = "org.opencontainers.image.ref.name"
	annotationName = "io.containerd.image.name"
)

// splitName splits a full image name into repository and tag.
func splitName(name string) (repository, tag string, err error) {
	at := strings.LastIndexByte(name, ':')
	if at <= strings.LastIndexByte(name, '/') || at == len(name)-1 || !strings.Contains(name[:at], "/") {
		return "", "", fmt.Errorf("%q is not HOST/REPOSITORY:TAG", name)
	}
	return name[:at], name[at+1:], nil
}

// writeArchive writes the index as an image layout in a tar file. The file is there when
// it is complete.
func writeArchive(o *options, index v1.ImageIndex) (err error) {
	dir, err := os.MkdirTemp("", "portcullis-layout-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	_, tag, err := splitName(o.name)
	if err != nil {
		return err
	}
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	names := map[string]string{annotationTag: tag, annotationName: o.name}
	if err := to.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(o.out), ".portcullis-image-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	err = o.writeTar(out, dir)
	if err == nil {
		err = out.Chmod(0o644)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), o.out)
}

// writeTar writes everything below a directory, in the order of the names.
func (o *options) writeTar(out *os.File, dir string) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return w.WriteHeader(header(tar.TypeDir, name+"/", 0o755, 0, o.created))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(header(tar.TypeReg, name, 0o644, len(data), o.created)); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	return errors.Join(err, w.Close())
}
