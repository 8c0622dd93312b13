package container

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/process"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// look is a program that prints what it was started with and sees.
const look = `package main

import ("fmt"; "os"; "path/filepath"; "strings")

func main() {
	filepath.WalkDir("/", func(path string, d os.DirEntry, err error) error {
		if path == "/proc" {
			return filepath.SkipDir
		}
		if d != nil && !d.IsDir() {
			fmt.Println("file", path)
		}
		return err
	})
	for _, path := range os.Args[1:] {
		fmt.Println("write", path, os.WriteFile(path, []byte("seen"), 0o600) == nil)
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "CapEff") || strings.HasPrefix(line, "NoNewPrivs") {
			fmt.Print(line)
		}
	}
}
`

func buildLook(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "look.go"), filepath.Join(dir, "look")
	if err := os.WriteFile(source, []byte(look), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestContainer: a program sees its image, its files and its volumes and nothing else,
// writes only where it may, and has only the capabilities that it was given.
func TestContainer(t *testing.T) {
	yes, no := true, false
	volume, fixed := t.TempDir(), t.TempDir()
	c, err := New(Config{
		Mountpoint: t.TempDir(),
		Programs:   map[string]string{"/usr/local/bin/look": buildLook(t)},
		Files:      map[string][]byte{"/var/run/secrets/token": []byte("x")},
		Volumes:    []Volume{{Path: "/run/shared", Source: volume}, {Path: "/fixed", Source: fixed, ReadOnly: true}},
		Security: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := []string{
		"file /dev/null", "file /dev/random", "file /dev/urandom", "file /dev/zero",
		"file /usr/local/bin/look", "file /var/run/secrets/token",
		"write /here false", "write /fixed/here false", "write /run/shared/here true",
		"CapEff:\t0000000000001000", "NoNewPrivs:\t1",
	}
	if got := run(t, c, "/here", "/fixed/here", "/run/shared/here"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text, err := os.ReadFile(filepath.Join(volume, "here")); string(text) != "seen" {
		t.Errorf("the volume has %q, %v", text, err)
	}
}

// TestDefaults: what asks for nothing may do what container runtimes leave it.
func TestDefaults(t *testing.T) {
	c, err := New(Config{Mountpoint: t.TempDir(), Programs: map[string]string{"/usr/local/bin/look": buildLook(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := run(t, c, "/here")
	if want := []string{"write /here true", "CapEff:\t00000000a80425fb", "NoNewPrivs:\t0"}; !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("%q", got)
	}
}

func run(t *testing.T, c *Container, args ...string) []string {
	t.Helper()
	var out bytes.Buffer
	p, err := c.Start(process.Spec{Name: "look", Path: "/usr/local/bin/look", Args: args, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.ExitCode() != 0 {
		t.Fatalf("exit code %d: %s", p.ExitCode(), out.String())
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestCapabilities(t *testing.T) {
	of := func(add, drop string) *corev1.SecurityContext {
		s := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{}}
		for name := range strings.FieldsSeq(add) {
			s.Capabilities.Add = append(s.Capabilities.Add, corev1.Capability(name))
		}
		for name := range strings.FieldsSeq(drop) {
			s.Capabilities.Drop = append(s.Capabilities.Drop, corev1.Capability(name))
		}
		return s
	}
	if got, err := Capabilities(nil); err != nil || len(got) != len(byDefault) {
		t.Error(got, err)
	}
	if got, err := Capabilities(of("", "NET_RAW")); err != nil || len(got) != len(byDefault)-1 || slices.Contains(got, unix.CAP_NET_RAW) {
		t.Error(got, err)
	}
	if got, err := Capabilities(of("NET_ADMIN CHOWN", "ALL")); err != nil || !slices.Equal(got, []int{unix.CAP_CHOWN, unix.CAP_NET_ADMIN}) {
		t.Error(got, err)
	}
	if _, err := Capabilities(of("SYS_ADMIN", "ALL")); err == nil {
		t.Error("a capability that is not known is passed over")
	}
}

// TestRefusals: what would be ignored is an error.
func TestRefusals(t *testing.T) {
	yes, user := true, int64(1000)
	for _, s := range []*corev1.SecurityContext{{Privileged: &yes}, {RunAsUser: &user}} {
		if _, err := New(Config{Mountpoint: t.TempDir(), Security: s}); err == nil {
			t.Errorf("%v is ignored", s)
		}
	}
}
