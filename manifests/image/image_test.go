package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"
)

const epoch = "1700000000"

// stub is a module with two programs of the right names: enough for what does not
// depend on what the programs are.
func stub(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"go.mod": "module example.com/stub\n\ngo 1.26.0\n"}
	for _, p := range programs {
		files["cmd/"+p+"/main.go"] = "package main\n\nvar version string\n\nfunc main() { print(version) }\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

// archive runs the program and returns what it has written.
func archive(t *testing.T, epoch string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "new", "image.tar")
	o, err := parse(append(args, "--out", out), epoch)
	require.NoError(t, err)
	require.NoError(t, run(t.Context(), o))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Dir(out))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing else is left")
	return text
}

// TestSameBytes builds the same sources in two folders, as two people would.
func TestSameBytes(t *testing.T) {
	args := []string{"--version", "v1", "--revision", "abc"}
	first := archive(t, epoch, append(args, "--source", stub(t))...)
	t.Setenv("GOFLAGS", "-tags=other")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("TZ", "Asia/Tokyo")
	other := stub(t)
	require.NoError(t, os.Chmod(filepath.Join(other, "cmd"), 0o700))
	require.True(t, bytes.Equal(first, archive(t, epoch, append(args, "--source", other)...)))
	require.False(t, bytes.Equal(first, archive(t, "1700000001", append(args, "--source", other)...)), "the time is in it")
}

// index unpacks an archive and returns the only image of its layout, after all of its
// digests, sizes and layers have been checked.
func index(t *testing.T, text []byte) (v1.Descriptor, v1.ImageIndex) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range untar(t, bytes.NewReader(text)) {
		path := filepath.Join(dir, f.path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, f.data, 0o644))
	}
	at, err := layout.FromPath(dir)
	require.NoError(t, err)
	top, err := at.ImageIndex()
	require.NoError(t, err)
	require.NoError(t, validate.Index(top))
	manifest, err := top.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	inner, err := top.ImageIndex(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	return manifest.Manifests[0], inner
}

// untar returns the files of an archive or a layer, and checks what all entries have in
// common.
func untar(t *testing.T, from io.Reader) (files []file) {
	t.Helper()
	seen := map[string]bool{".": true}
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		require.NoError(t, err)
		require.True(t, filepath.IsLocal(h.Name), h.Name)
		require.True(t, seen[filepath.Dir(filepath.Clean(h.Name))], "%s is in no directory", h.Name)
		require.Equal(t, [2]int{0, 0}, [2]int{h.Uid, h.Gid}, h.Name)
		require.Equal(t, int64(1700000000), h.ModTime.Unix(), h.Name)
		seen[filepath.Clean(h.Name)] = true
		if h.Typeflag == tar.TypeDir {
			require.Equal(t, int64(0o755), h.Mode, h.Name)
			continue
		}
		require.Equal(t, byte(tar.TypeReg), h.Typeflag, h.Name)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		files = append(files, file{h.Name, fs.FileMode(h.Mode), data})
	}
}

// layers returns the files of an image's layers.
func layers(t *testing.T, image v1.Image) (out [][]file) {
	t.Helper()
	all, err := image.Layers()
	require.NoError(t, err)
	for _, l := range all {
		r, err := l.Uncompressed()
		require.NoError(t, err)
		out = append(out, untar(t, r))
		require.NoError(t, r.Close())
	}
	return out
}

// TestArchive reads an archive of both platforms back, from the layout's index to the
// machine that the programs are for.
func TestArchive(t *testing.T) {
	args := []string{"--version", "v1.2.3", "--revision", "abc", "--source", stub(t), "--name", "registry.example/net/portcullis:v1.2.3"}
	top, images := index(t, archive(t, epoch, args...))
	require.Equal(t, types.OCIImageIndex, top.MediaType)
	require.Equal(t, map[string]string{
		"org.opencontainers.image.ref.name": "v1.2.3", "io.containerd.image.name": "registry.example/net/portcullis:v1.2.3",
	}, top.Annotations)
	manifest, err := images.IndexManifest()
	require.NoError(t, err)
	labels := map[string]string{
		"org.opencontainers.image.title":       "Portcullis",
		"org.opencontainers.image.description": "Kubernetes NetworkPolicy, enforced with nftables by an agent on each node",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      "https://github.com/portcullis-netpol/portcullis",
		"org.opencontainers.image.version":     "v1.2.3",
		"org.opencontainers.image.revision":    "abc",
		"org.opencontainers.image.created":     "2023-11-14T22:13:20Z",
	}
	require.Equal(t, labels, manifest.Annotations)
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	require.Len(t, manifest.Manifests, len(machines))
	for i, goarch := range []string{"amd64", "arm64"} {
		d := manifest.Manifests[i]
		require.Equal(t, types.OCIManifestSchema1, d.MediaType)
		require.Equal(t, "linux/"+goarch, d.Platform.String())
		image, err := images.Image(d.Digest)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "linux/"+goarch, config.Platform().String())
		require.Equal(t, v1.Config{
			User: "0", Env: []string{"PATH=/usr/local/bin"}, Entrypoint: []string{"/usr/local/bin/portcullis"}, Labels: labels,
		}, config.Config)
		content := layers(t, image)
		require.Len(t, content, 2)
		require.Len(t, content[0], 2)
		for j, p := range []string{"usr/local/bin/portcullis", "usr/local/bin/portcullis-cni"} {
			require.Equal(t, p, content[0][j].path)
			require.Equal(t, fs.FileMode(0o755), content[0][j].mode)
			program, err := elf.NewFile(bytes.NewReader(content[0][j].data))
			require.NoError(t, err)
			require.Equal(t, machines[goarch], program.Machine)
		}
		require.Len(t, content[1], 1)
		require.Equal(t, "usr/share/sbom/portcullis.cdx.json", content[1][0].path)
		require.Equal(t, fs.FileMode(0o644), content[1][0].mode)
	}
}

// TestFlags refuses what cannot be meant.
func TestFlags(t *testing.T) {
	cases := map[string][]string{
		"neither":        {},
		"both":           {"--out", "a", "--rootfs", "b"},
		"two in one":     {"--rootfs", "b"},
		"no tag":         {"--out", "a", "--name", "registry.example:5000/portcullis"},
		"no host":        {"--out", "a", "--name", "portcullis:latest"},
		"empty tag":      {"--out", "a", "--name", "registry.example/portcullis:"},
		"other platform": {"--out", "a", "--platforms", "windows/amd64"},
		"variant":        {"--out", "a", "--platforms", "linux/arm/v7"},
		"argument":       {"--out", "a", "b"},
	}
	for name, args := range cases {
		_, err := parse(args, "")
		require.Error(t, err, name)
	}
	_, err := parse([]string{"--out", "a"}, "yesterday")
	require.ErrorContains(t, err, "SOURCE_DATE_EPOCH")
	_, err = parse([]string{"--out", "a", "--name", "registry.example:5000/portcullis:v1"}, "")
	require.NoError(t, err)
}
