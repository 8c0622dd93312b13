package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIsStatic: ldd fails for programs without a dynamic linker, as Go makes them.
func TestIsStatic(t *testing.T) {
	program := filepath.Join(t.TempDir(), "guest")
	build := exec.Command("go", "build", "-o", program, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	static, err := isStatic(program)
	require.NoError(t, err)
	require.True(t, static)
	static, err = isStatic("/bin/sh")
	require.NoError(t, err)
	require.False(t, static)
	_, err = isStatic("image.go")
	require.Error(t, err)
}
