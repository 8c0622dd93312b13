package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// write puts files into dir, in place; missing directories are made.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// written returns a new directory with files.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	return dir
}

func revisionOf(t *testing.T, dir string) string {
	t.Helper()
	r, err := Revision(dir)
	require.NoError(t, err)
	return r
}

// TestRevision is a function of the names and contents of the manifests, and of
// nothing else.
func TestRevision(t *testing.T) {
	files := map[string]string{"b.yaml": "b", "a.yml": "a", "sub/c.json": "{}"}
	want := revisionOf(t, written(t, files))
	require.Regexp(t, "^[0-9a-f]{64}$", want)
	require.Equal(t, want, revisionOf(t, written(t, files)))

	ignored := written(t, files)
	write(t, ignored, map[string]string{"README.md": "x", ".hidden.yaml": "x", ".d/x.yaml": "x", "a.yml~": "x", "a.yaml.swp": "x"})
	require.Equal(t, want, revisionOf(t, ignored))

	for name, other := range map[string]map[string]string{
		"content":     {"b.yaml": "B", "a.yml": "a", "sub/c.json": "{}"},
		"name":        {"B.yaml": "b", "a.yml": "a", "sub/c.json": "{}"},
		"one less":    {"a.yml": "a", "sub/c.json": "{}"},
		"directory":   {"b.yaml": "b", "a.yml": "a", "c.json": "{}"},
		"moved bytes": {"b.yaml": "", "a.yml": "ab", "sub/c.json": "{}"},
	} {
		require.NotEqual(t, want, revisionOf(t, written(t, other)), name)
	}
	// Where one name or content ends is part of it.
	require.NotEqual(t,
		revisionOf(t, written(t, map[string]string{"a.yaml": "x", "b.yaml": ""})),
		revisionOf(t, written(t, map[string]string{"a.yaml": "xb.yaml"})))
	require.NotEqual(t, revisionOf(t, t.TempDir()), want)
}

// TestRevisionFollowsLinks reads through symbolic links to files and directories.
func TestRevisionFollowsLinks(t *testing.T) {
	plain := written(t, map[string]string{"a.yaml": "a", "sub/b.yaml": "b"})
	linked := written(t, map[string]string{"..2026/a.yaml": "a", "..2026/sub/b.yaml": "b"})
	require.NoError(t, os.Symlink("..2026", filepath.Join(linked, "..data")))
	require.NoError(t, os.Symlink("..data/a.yaml", filepath.Join(linked, "a.yaml")))
	require.NoError(t, os.Symlink("..data/sub", filepath.Join(linked, "sub")))
	require.Equal(t, revisionOf(t, plain), revisionOf(t, linked))

	root := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(plain, root))
	require.Equal(t, revisionOf(t, plain), revisionOf(t, root))
}

// TestRevisionErrors names what cannot be read.
func TestRevisionErrors(t *testing.T) {
	_, err := Revision(filepath.Join(t.TempDir(), "nowhere"))
	require.ErrorContains(t, err, "nowhere")

	loop := written(t, map[string]string{"a.yaml": "a"})
	require.NoError(t, os.Symlink(".", filepath.Join(loop, "sub")))
	require.NoError(t, os.Symlink(".", filepath.Join(loop, "sub2")))
	_, err = Revision(loop)
	require.ErrorContains(t, err, "leads back")

	dangling := written(t, map[string]string{"a.yaml": "a"})
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dangling, "b.yaml")))
	_, err = Revision(dangling)
	require.ErrorContains(t, err, "b.yaml")

	big := written(t, map[string]string{"a.yaml": ""})
	require.NoError(t, os.Truncate(filepath.Join(big, "a.yaml"), maxFile+1))
	_, err = Revision(big)
	require.ErrorContains(t, err, "a.yaml: larger than")
}

// TestRevisionValue pins the encoding: names in the order of their bytes, each name and
// content behind its length in eight bytes.
func TestRevisionValue(t *testing.T) {
	dir := written(t, map[string]string{"a/c.yaml": "C", "a-b.yaml": ""})
	want := sha256.Sum256([]byte("\x00\x00\x00\x00\x00\x00\x00\x08a-b.yaml\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x08a/c.yaml\x00\x00\x00\x00\x00\x00\x00\x01C"))
	require.Equal(t, hex.EncodeToString(want[:]), revisionOf(t, dir))
}
