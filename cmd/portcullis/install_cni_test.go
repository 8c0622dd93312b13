package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// cniHost makes the directories of a node and returns the flags that name them.
func cniHost(t *testing.T) (conf string, flags []string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"net.d", "bin", "image"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "image", cni.PluginType), []byte("binary"), 0o755))
	conf = filepath.Join(dir, "net.d", "10.conflist")
	require.NoError(t, os.WriteFile(conf, []byte(`{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"}]}`), 0o644))
	return conf, []string{
		"install-cni", "--conf-dir", filepath.Join(dir, "net.d"), "--bin-dir", filepath.Join(dir, "bin"), "--source", filepath.Join(dir, "image"),
	}
}

// TestInstallCNI installs with the settings of its flags, and removes.
func TestInstallCNI(t *testing.T) {
	conf, flags := cniHost(t)
	code, _, stderr := run(t, append(flags, "--socket", "/run/x.sock", "--timeout", "1500ms", "--on-agent-unreachable", "fail")...)
	require.Equal(t, exitOK, code, stderr)
	text, err := os.ReadFile(conf)
	require.NoError(t, err)
	require.Equal(t, `{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"portcullis-cni","socket":"/run/x.sock","timeout":"1.5s","onAgentUnreachable":"fail"}]}`, string(text))
	code, _, stderr = run(t, append(flags, "--remove")...)
	require.Equal(t, exitOK, code, stderr)
	text, err = os.ReadFile(conf)
	require.NoError(t, err)
	require.Equal(t, `{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"}]}`, string(text))
}

// TestInstallCNIWatch stays until it is told to end, and leaves the plugin in place.
func TestInstallCNIWatch(t *testing.T) {
	conf, flags := cniHost(t)
	a, _, stderr := testApp()
	stop := startApp(a, append(flags, "--watch")...)
	stderr.wait(t, "watching")
	require.Equal(t, exitOK, stop())
	text, err := os.ReadFile(conf)
	require.NoError(t, err)
	require.Contains(t, string(text), `{"type":"portcullis-cni","socket":"/run/portcullis/cni.sock","timeout":"3s","onAgentUnreachable":"allow"}`)
}

// TestInstallCNIMistakes have their exit codes and are named.
func TestInstallCNIMistakes(t *testing.T) {
	conf, flags := cniHost(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"socket":      {[]string{"--socket", "cni.sock"}, exitInput, `socket: "cni.sock"`},
		"timeout":     {[]string{"--timeout", "2m"}, exitInput, "timeout: 2m0s"},
		"no timeout":  {[]string{"--timeout", "0s"}, exitInput, "timeout: 0s"},
		"unreachable": {[]string{"--on-agent-unreachable", "drop"}, exitInput, "allow, fail"},
		"both":        {[]string{"--watch", "--remove"}, exitInput, "remove watch"},
		"keep":        {[]string{"--keep-binary"}, exitInput, "--keep-binary is for --remove"},
		"argument":    {[]string{"now"}, exitInput, `"now"`},
		"no conf-dir": {[]string{"--conf-dir", "testdata/nowhere"}, exitFailure, "testdata/nowhere"},
		"no source":   {[]string{"--source", "testdata/nowhere"}, exitFailure, "testdata/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := run(t, append(append([]string{}, flags...), c.args...)...)
			require.Equal(t, c.code, code, stderr)
			require.Contains(t, stderr, c.says)
		})
	}
	text, err := os.ReadFile(conf)
	require.NoError(t, err)
	require.NotContains(t, string(text), cni.PluginType)
}
