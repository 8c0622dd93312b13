package nft

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// TestMain runs the tests as root: its own, or that of a new user namespace.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 || os.Getenv("PORTCULLIS_KERNEL_TESTS") == "skip" {
		os.Exit(m.Run())
	}
	os.Exit(inUserNamespace(os.Stdout, os.Args[1:]...))
}

// inUserNamespace runs this binary again as root of new user and network
// namespaces and returns its exit code.
func inUserNamespace(out *os.File, args ...string) int {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "the kernel tests need root or user namespaces:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// needKernel makes a test skip only where that was asked for.
func needKernel(t testing.TB) {
	t.Helper()
	if os.Getenv("PORTCULLIS_KERNEL_TESTS") == "skip" {
		t.Skip("PORTCULLIS_KERNEL_TESTS=skip")
	}
}

// newNetNS returns a network namespace that vanishes with the test.
func newNetNS(t testing.TB) int {
	t.Helper()
	needKernel(t)
	var fd int
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// onThread runs f on a thread that is not used for anything else.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// runNFT runs the nft binary in a network namespace.
func runNFT(t testing.TB, netns int, stdin string, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	err := onThread(func() error {
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return err
		}
		cmd := exec.Command("nft", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
		return cmd.Run()
	})
	require.NoError(t, err, "nft %v: %s", args, errOut.String())
	return out.String()
}

func openTestKernel(t testing.TB, netns int) *kernel {
	t.Helper()
	k, err := openKernel(netns, wantBuffer)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

// applyAll applies c and waits until all that it makes superfluous is gone.
func applyAll(ctx context.Context, e *Enforcer, c ir.Change) error {
	if err := e.Apply(ctx, c); err != nil {
		return err
	}
	return e.Tidy(ctx)
}
