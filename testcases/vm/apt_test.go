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

func TestParts(t *testing.T) {
	require.Empty(t, parts("/x/linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb", "kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120)"))
	require.Equal(t, []string{"linux-base-7.2.13+deb14-amd64", "linux-binary-7.2.13+deb14-amd64"},
		parts("linux-image-7.2.13+deb14-amd64_7.2.13-1_amd64.deb",
			"dracut | initramfs-tools, linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1)"))
}

func TestImageRelease(t *testing.T) {
	for name, want := range map[string]string{
		"/boot/vmlinuz-6.1.0-56-amd64":                  "6.1.0-56-amd64",
		"/usr/lib/modules/7.2.13+deb14-amd64/vmlinuz":   "7.2.13+deb14-amd64",
		"/usr/lib/modules/7.2.13+deb14-amd64/vmlinuz.o": "",
		"/usr/share/doc/x/vmlinuz":                      "",
	} {
		release, ok := imageRelease(name)
		require.Equal(t, want != "", ok, name)
		if ok {
			require.Equal(t, want, release)
		}
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
