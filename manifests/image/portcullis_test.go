package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPortcullis builds the real programs for the machine that it runs on, takes them out
// of the image and runs them.
func TestPortcullis(t *testing.T) {
	platform := "linux/" + runtime.GOARCH
	_, images := index(t, archive(t, epoch, "--version", "v9.8.7", "--platforms", platform))
	manifest, err := images.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	image, err := images.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	root := t.TempDir()
	var sbom bom
	for _, f := range slices.Concat(layers(t, image)...) {
		path := filepath.Join(root, f.path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, f.data, f.mode))
		if f.path == sbomPath {
			decoder := json.NewDecoder(bytes.NewReader(f.data))
			decoder.DisallowUnknownFields()
			require.NoError(t, decoder.Decode(&sbom))
		}
	}
	command, plugin := filepath.Join(root, binDir, "portcullis"), filepath.Join(root, binDir, "portcullis-cni")

	requireStatic(t, command)
	requireStatic(t, plugin)
	text, err := exec.CommandContext(t.Context(), command, "version").Output()
	require.NoError(t, err)
	require.Regexp(t, `^portcullis v9\.8\.7, go[^ ]+ `+platform+"\n$", string(text))
	version := exec.CommandContext(t.Context(), plugin)
	version.Env = []string{"CNI_COMMAND=VERSION"}
	version.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
	text, err = version.Output()
	require.NoError(t, err)
	require.Contains(t, string(text), `"supportedVersions"`)

	require.Equal(t, "CycloneDX 1.6", sbom.Format+" "+sbom.Spec)
	var libraries []string
	for _, c := range sbom.Components {
		if c.Type == "library" {
			libraries = append(libraries, c.Ref)
		}
	}
	all := append(linked(t, command), linked(t, plugin)...)
	slices.Sort(all)
	require.Equal(t, slices.Compact(all), libraries)
	require.Equal(t, []dependency{
		{sbom.Metadata.Component.Ref, []string{"/" + binDir + "/portcullis", "/" + binDir + "/portcullis-cni"}},
		{"/" + binDir + "/portcullis", linked(t, command)},
		{"/" + binDir + "/portcullis-cni", linked(t, plugin)},
	}, sbom.Dependencies)
}

// requireStatic requires that a program needs no loader and no library.
func requireStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type, path)
		require.NotEqual(t, elf.PT_DYNAMIC, p.Type, path)
	}
}

// linked asks the go command which modules a program is made of, and returns how the
// SBOM should name them.
func linked(t *testing.T, path string) []string {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "go", "version", "-m", path).Output()
	require.NoError(t, err)
	head, rest, _ := strings.Cut(string(text), "\n")
	out := []string{"pkg:golang/stdlib@" + head[strings.LastIndex(head, " go")+3:]}
	for line := range strings.Lines(rest) {
		if words := strings.Fields(line); words[0] == "dep" {
			out = append(out, "pkg:golang/"+words[1]+"@"+strings.ReplaceAll(words[2], "+", "%2B"))
		}
	}
	require.Greater(t, len(out), 1)
	slices.Sort(out)
	return out
}

// TestRootfs writes what the layers have, for the Dockerfile.
func TestRootfs(t *testing.T) {
	source, root := stub(t), t.TempDir()
	o, err := parse([]string{"--source", source, "--platforms", "linux/amd64", "--rootfs", root}, epoch)
	require.NoError(t, err)
	require.NoError(t, run(t.Context(), o))
	_, images := index(t, archive(t, epoch, "--source", source, "--platforms", "linux/amd64"))
	manifest, err := images.IndexManifest()
	require.NoError(t, err)
	image, err := images.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	for _, f := range slices.Concat(layers(t, image)...) {
		data, err := os.ReadFile(filepath.Join(root, f.path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(f.data, data), f.path)
		info, err := os.Stat(filepath.Join(root, f.path))
		require.NoError(t, err)
		require.Equal(t, f.mode, info.Mode(), f.path)
	}
}

// TestDockerfile compares the last stage of the Dockerfile with the archive's image.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	build, last, ok := strings.Cut(string(text), "\nFROM scratch\n")
	require.True(t, ok)
	release := regexp.MustCompile(`(?m)^FROM --platform=\$BUILDPLATFORM golang:(1\.\d+) AS build$`).FindStringSubmatch(build)
	require.NotNil(t, release)
	module, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	require.Contains(t, string(module), "\ngo "+release[1]+".")

	run := regexp.MustCompile(`(?m)^RUN cd manifests/image && go run \. (.*) --rootfs /out$`).FindStringSubmatch(build)
	require.NotNil(t, run)
	args := strings.Fields(strings.NewReplacer("$TARGETARCH", "arm64", "$VERSION", "v7", `"`, "").Replace(run[1]))
	o, err := parse(append(args, "--rootfs", "/out"), "")
	require.NoError(t, err)
	require.Equal(t, []string{"linux/arm64"}, o.platforms)

	image, err := newImage(o, &content{}, "linux", "arm64")
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	labels := config.Config.Labels
	delete(labels, labelPrefix+"created") // Docker has its own
	var want []string
	for key, value := range labels {
		want = append(want, "LABEL "+key+`="`+value+`"`)
	}
	want = append(want,
		"ARG VERSION=unknown", "COPY --from=build /out/ /",
		"ENV "+config.Config.Env[0], "USER "+config.Config.User, `ENTRYPOINT ["`+config.Config.Entrypoint[0]+`"]`)
	require.ElementsMatch(t, want, strings.Split(strings.TrimSpace(strings.ReplaceAll(last, "$VERSION", "v7")), "\n"))
}
