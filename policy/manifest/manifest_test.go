package manifest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// write makes files below a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

func TestFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"b.yaml": "", "a.YML": "", "sub/c.json": "", "README.md": "", ".swap.yaml": "", ".git/x.yaml": "", "odd.txt": "",
		"..data/linked.yaml": "",
	})
	require.NoError(t, os.Symlink(filepath.Join(dir, "..data", "linked.yaml"), filepath.Join(dir, "z.yaml")))
	in := func(names ...string) []string {
		var out []string
		for _, n := range names {
			out = append(out, filepath.Join(dir, n))
		}
		return out
	}

	files, err := manifest.Files(dir)
	require.NoError(t, err)
	assert.Equal(t, in("a.YML", "b.yaml", "sub/c.json", "z.yaml"), files, "a directory")

	files, err = manifest.Files(filepath.Join(dir, "odd.txt"), "-", dir+"/./b.yaml", filepath.Join(dir, "sub"), dir+"/sub/c.json")
	require.NoError(t, err)
	assert.Equal(t, append(append(in("odd.txt"), "-"), in("b.yaml", "sub/c.json")...), files, "each file once")

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(filepath.Join(dir, "sub"), link))
	files, err = manifest.Files(link)
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(link, "c.json")}, files, "a link to a directory that is named")

	t.Chdir(dir)
	files, err = manifest.Files(".")
	require.NoError(t, err)
	assert.Equal(t, []string{"a.YML", "b.yaml", "sub/c.json", "z.yaml"}, files, "the working directory")

	require.NoError(t, os.Symlink(filepath.Join(dir, "sub"), filepath.Join(dir, "loop")))
	files, err = manifest.Files("gone.yaml", ".")
	assert.ErrorContains(t, err, "gone.yaml: no such file")
	assert.ErrorContains(t, err, "loop: a link to a directory is not followed")
	assert.Len(t, files, 4, "the rest is listed all the same")
}

func TestReadGoesOnAfterABrokenFile(t *testing.T) {
	dir := write(t, map[string]string{"a.yaml": "a: [", "b.yaml": podA, "c.yaml": podB})
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "d.yaml")))
	o, err := manifest.Read(dir, filepath.Join(dir, "missing"))
	assert.ErrorContains(t, err, filepath.Join(dir, "a.yaml")+", document 1 (line 1): yaml")
	assert.ErrorContains(t, err, "missing: no such file")
	assert.ErrorContains(t, err, "d.yaml: no such file")
	assert.Equal(t, []string{"Namespace shop", "Pod shop/a", "Pod shop/b"}, names(o))
}

func TestReadStandardInput(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"in": podA + "---\na: ["}), "in")
	in, err := os.Open(path)
	require.NoError(t, err)
	defer in.Close()
	old := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = old }()
	o, err := manifest.Read(manifest.Stdin)
	assert.ErrorContains(t, err, "standard input, document 2 (line 4): yaml")
	assert.Equal(t, []string{"Namespace shop", "Pod shop/a"}, names(o))
}

func TestLoadIsReadAndValidate(t *testing.T) {
	const odd = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {ingress: [{from: [{ipBlock: {cidr: x}}]}]}"
	dir := write(t, map[string]string{"a.yaml": odd, "b.yaml": "a: ["})
	o, err := manifest.Load(dir)
	assert.ErrorContains(t, err, "a.yaml, document 1 (line 1): NetworkPolicy default/p: spec.ingress[0].from[0].ipBlock.cidr: Invalid value")
	assert.ErrorContains(t, err, "b.yaml")
	assert.Len(t, o.Policies, 1)

	o, err = manifest.Read(filepath.Join(dir, "a.yaml"))
	require.NoError(t, err, "Read takes what is of the right form")
	assert.Equal(t, "x", o.Policies[0].Spec.Ingress[0].From[0].IPBlock.CIDR)
}

func TestMerge(t *testing.T) {
	one, err := manifest.Decode("one", []byte(podA+"---\n"+deployment("web", 1)))
	require.NoError(t, err)
	two, err := manifest.Decode("two", []byte(podB+"---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}"))
	require.NoError(t, err)
	byHand := &manifest.Objects{Pods: []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "y"}}}}

	o, err := manifest.Merge(one, two, byHand)
	require.NoError(t, err)
	assert.Equal(t, []string{"Namespace shop", "Namespace y", "Pod shop/a", "Pod shop/b", "Pod y/x", "Pod shop/web-0"}, names(o))
	assert.Equal(t, "a", o.Namespaces[0].Labels["team"], "the namespace that is given counts, not the one made for the first file")
	assert.Equal(t, "one", o.Origins["Pod shop/web-0"].File)
	assert.Equal(t, "two", o.Origins["Namespace shop"].File)

	again, err := manifest.Merge(o)
	require.NoError(t, err)
	assert.Equal(t, o, again)

	empty, err := manifest.Merge()
	require.NoError(t, err)
	assert.Empty(t, names(empty))
}

func TestMergeDuplicates(t *testing.T) {
	one, err := manifest.Decode("one", []byte("---\n"+podA+"---\n"+podB))
	require.NoError(t, err)
	two, err := manifest.Decode("two", []byte("apiVersion: v1\nkind: PodList\nitems:\n- "+podB))
	require.NoError(t, err)
	two.Pods[0].Labels = map[string]string{"from": "two"}
	o, err := manifest.Merge(one, two)
	assert.EqualError(t, err, "two, document 1 (line 1), items[0]: Pod shop/b: the same object is also in one, document 2 (line 5)")
	assert.Equal(t, []string{"Namespace shop", "Pod shop/a", "Pod shop/b"}, names(o))
	assert.Empty(t, o.Pods[1].Labels, "the first one is kept")
}
