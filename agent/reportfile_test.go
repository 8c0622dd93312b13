package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// TestReportFileIsNotAFile neither follows a link, nor waits for a pipe to say something,
// nor writes to what a link leads to.
func TestReportFileIsNotAFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, []byte(`{"version":1}`), 0o600))
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.Symlink(target, link+".new"))
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	for _, path := range []string{link, pipe, dir} {
		f := &reportFile{path: path}
		_, err := f.read()
		require.Error(t, err, path)
	}
	f := &reportFile{path: link}
	require.NoError(t, f.write(kept{Subnets: []cni.Subnet{subnet4}}))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
	text, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, `{"version":1}`, string(text))
}

// TestReportFileCannotBeWritten is an error that leaves nothing behind, and another try
// writes it.
func TestReportFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gone", "subnets")
	f := &reportFile{path: path}
	require.Error(t, f.write(kept{Subnets: []cni.Subnet{subnet4}}))
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, f.write(kept{Subnets: []cni.Subnet{subnet4}}))
	k, err := (&reportFile{path: path}).read()
	require.NoError(t, err)
	require.Equal(t, []cni.Subnet{subnet4}, k.Subnets)
	require.NoError(t, f.write(kept{})) // what there was is taken back
	k, err = (&reportFile{path: path}).read()
	require.NoError(t, err)
	require.Empty(t, k.Subnets)
}
