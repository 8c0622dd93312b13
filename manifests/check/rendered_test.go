package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	manifests = ".."
	chartDir  = "../helm"
	release   = "some-release"
)

// helmTemplate returns what `helm template` prints for values as they are in a file, and
// the notes that an installation shows. The APIs are those that the cluster has besides
// Kubernetes' own.
func helmTemplate(values []byte, apis ...string) (objects, notes string, err error) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		return "", "", err
	}
	given, err := chartutil.ReadValues(values)
	if err != nil {
		return "", "", err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: "default", Revision: 1, IsInstall: true}
	// With the schema's verdict, as Helm's commands ask for it.
	cluster := chartutil.DefaultCapabilities.Copy()
	cluster.APIVersions = append(cluster.APIVersions, apis...)
	all, err := chartutil.ToRenderValues(chart, given, options, cluster)
	if err != nil {
		return "", "", err
	}
	files, err := engine.Engine{Strict: true}.Render(chart, all)
	if err != nil {
		return "", "", err
	}
	notes = files[path.Join(chart.Name(), "templates", "NOTES.txt")]
	delete(files, path.Join(chart.Name(), "templates", "NOTES.txt"))
	_, sorted, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return "", "", err
	}
	var out strings.Builder
	for _, m := range sorted {
		fmt.Fprintf(&out, "---\n%s\n", strings.Trim(m.Content, "\n"))
	}
	return out.String(), notes, nil
}

// kustomizeBuild returns what `kustomize build` prints for a folder, which may refer to
// others.
func kustomizeBuild(t *testing.T, dir string) string {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	text, err := all.AsYaml()
	require.NoError(t, err)
	return string(text)
}

// withComponents is a copy of the manifests in which a line that is a comment there adds
// components.
func withComponents(t *testing.T, names string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(manifests)))
	file := filepath.Join(dir, "kustomization.yaml")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), "\n# components: [cni]")
	text = bytes.ReplaceAll(text, []byte("\n# components: [cni]"), []byte("\ncomponents: ["+names+"]"))
	require.NoError(t, os.WriteFile(file, text, 0o644))
	return dir
}

// types are those of Kubernetes and of the Prometheus Operator.
func types() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(s))
	utilruntime.Must(monitoringv1.AddToScheme(s))
	return s
}

// decode decodes every object strictly and returns it by its kind and name.
func decode(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	strict := serializer.NewCodecFactory(types(), serializer.EnableStrict).UniversalDeserializer()
	out := map[string]runtime.Object{}
	for documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader([]byte(text)))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		object, kind, err := strict.Decode(document, nil, nil)
		require.NoError(t, err, "%s", document)
		named, ok := object.(interface{ GetName() string })
		require.True(t, ok, kind)
		key := kind.Kind + "/" + named.GetName()
		require.NotContains(t, out, key)
		out[key] = object
	}
}
