package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompletion completes words as a shell asks for them.
func TestCompletion(t *testing.T) {
	t.Setenv("KUBECONFIG", "testdata/nowhere")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	cluster := apiServer(t, 200)
	const file, space, noSpace = ":0", ":4", ":6" // directives: files, no files, no files and no space behind it
	for _, c := range []struct{ typed, want string }{
		{"mon", "monitor " + space},
		{"monitor --reason ", "any policy audit quarantine cut " + space},
		{"agent --deny ", "drop reject " + space},
		{"matrix --by ", "pod workload namespace " + space},
		{"matrix -f ", file},
		{"agent --node-name ", space},
		{"explain -f testdata/shop ", "monitoring/ reports/ shop/ " + noSpace},
		{"explain -f testdata/shop sh", "shop/ " + noSpace},
		{"explain -f testdata/shop shop/a shop/d", "shop/database " + space},
		{"explain -f testdata/shop a b ", space},
		{"explain --kubeconfig " + cluster + " shop/", space},
		{"matrix -f testdata/shop -n r", "reports " + space},
		{"matrix --kubeconfig " + cluster + " -n ", "shop " + space},
		{"monitor --pod ", noSpace}, // no cluster
		{"completion ", "bash fish kubectl powershell zsh " + space},
	} {
		_, stdout, _ := run(t, append([]string{"__completeNoDesc"}, strings.Split(c.typed, " ")...)...)
		require.Equal(t, strings.Fields(c.want), strings.Fields(stdout), c.typed)
	}
}

// TestCompletionScripts prints a script for each shell that bash, at least, can read.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell", "kubectl"} {
		code, script, stderr := run(t, "completion", shell)
		require.Equal(t, exitOK, code, stderr)
		require.Contains(t, script, "portcullis")
		if shell == "bash" {
			file := filepath.Join(t.TempDir(), "script")
			require.NoError(t, os.WriteFile(file, []byte(script), 0o600))
			out, err := exec.Command("bash", "-n", file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}
	code, _, stderr := run(t, "completion", "tcsh")
	require.Equal(t, exitInput, code)
	require.Contains(t, stderr, "tcsh")
}

// TestCompletionOfNames passes no name on that a shell could take for something else.
func TestCompletionOfNames(t *testing.T) {
	require.Equal(t, []string{"a-1.b"}, beginning([]string{"b", "a-1.b", "a;rm -rf $HOME", "a\x1b", "a b", "a-1.b"}, "a"))
}
