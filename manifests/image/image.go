package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const labelPrefix = "org.opencontainers.image."

// labels are the image's labels, and its index's annotations.
func (o *options) labels() map[string]string {
	out := map[string]string{
		labelPrefix + "title":       "Portcullis",
		labelPrefix + "description": "Kubernetes NetworkPolicy, enforced with nftables by an agent on each node",
		labelPrefix + "licenses":    "Apache-2.0",
		labelPrefix + "source":      "https://github.com/portcullis-netpol/portcullis",
		labelPrefix + "version":     o.version,
		labelPrefix + "created":     o.created.Format(time.RFC3339),
	}
	if o.revision != "" {
		out[labelPrefix+"revision"] = o.revision
	}
	return out
}

// newIndex returns the index of the images of all platforms, in the order of their
// names.
func newIndex(o *options, contents map[string]*content) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range slices.Sorted(maps.Keys(contents)) {
		goos, goarch, _ := strings.Cut(platform, "/")
		image, err := newImage(o, contents[platform], goos, goarch)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: goos, Architecture: goarch}},
		})
	}
	annotated, ok := mutate.Annotations(index, o.labels()).(v1.ImageIndex)
	if !ok {
		return nil, errors.New("an index with annotations is no index")
	}
	return annotated, nil
}

func newImage(o *options, c *content, goos, goarch string) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = goos, goarch, v1.Time{Time: o.created}
	config.Config = v1.Config{
		User: "0", // of the host's namespace, or NET_ADMIN would have no effect there
		// Where runtimes look for `command: [portcullis]`.
		Env:        []string{"PATH=/" + binDir},
		Entrypoint: []string{"/" + binDir + "/portcullis"},
		Labels:     o.labels(),
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		comment string
		files   []file
	}{{"programs", c.binaries}, {"SBOM", []file{c.sbom}}} {
		layer, err := newLayer(l.files, o.created)
		if err != nil {
			return nil, fmt.Errorf("layer of %s: %w", l.comment, err)
		}
		image, err = mutate.Append(image, mutate.Addendum{
			Layer: layer, History: v1.History{Created: v1.Time{Time: o.created}, CreatedBy: "manifests/image", Comment: l.comment},
		})
		if err != nil {
			return nil, err
		}
	}
	return image, nil
}

// newLayer returns a layer with the files, in their order, and the directories that they
// are in.
func newLayer(files []file, when time.Time) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	made := map[string]bool{".": true}
	for _, f := range files {
		for _, dir := range parents(f.path) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(header(tar.TypeDir, dir+"/", 0o755, 0, when)); err != nil {
				return nil, err
			}
		}
		if err := w.WriteHeader(header(tar.TypeReg, f.path, f.mode, len(f.data), when)); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// parents are the directories above a path, the uppermost first.
func parents(p string) []string {
	var out []string
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		out = append(out, dir)
	}
	slices.Reverse(out)
	return out
}

func header(kind byte, name string, mode fs.FileMode, size int, when time.Time) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Mode: int64(mode), Size: int64(size), ModTime: when, Format: tar.FormatUSTAR}
}
