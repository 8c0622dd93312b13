package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewestPackage(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64", "linux-image-6.1.0-48-amd64",
		"linux-image-6.1.0-57-cloud-amd64", "linux-image-6.1.0-57-rt-amd64", "linux-image-6.1.0-57-amd64-unsigned",
		"linux-image-6.1.0-57-amd64-dbg", "linux-image-amd64", "linux-image-6.12-amd64",
		"linux-image-6.12.99+deb12-amd64", "linux-image-6.12.117+deb12-amd64", "linux-image-6.1.0-0.deb11.52-amd64",
		"linux-image-6.16.3~rc1-amd64", "linux-headers-7.0.1-amd64", "linux-image-7.0.1-arm64",
	}
	for series, want := range map[string]string{
		"6.1":  "linux-image-6.1.0-56-amd64",
		"6.12": "linux-image-6.12.117+deb12-amd64",
		"":     "linux-image-6.16.3~rc1-amd64",
		"5.10": "",
		"6":    "linux-image-6.16.3~rc1-amd64",
	} {
		require.Equal(t, want, newestPackage(names, series), series)
	}
}

func TestNewestFile(t *testing.T) {
	dir := t.TempDir()
	require.Empty(t, newestFile(dir, "6.1"))
	for _, name := range []string{"linux-image-6.1.0-9-amd64_6.1.9_amd64.deb", "linux-image-6.1.0-12-amd64_6.1.12_amd64.deb", "linux-image-6.12.1-amd64_1_amd64.deb"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.Equal(t, filepath.Join(dir, "linux-image-6.1.0-12-amd64_6.1.12_amd64.deb"), newestFile(dir, "6.1"))
}
