package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// enteredVariable tells the program that Enter started that it need not, and
// cannot, try again.
const enteredVariable = "PORTCULLIS_LAB_ENTERED"

// Enter makes sure that this process may create network namespaces. If it may
// already (root), Enter returns nil at once. If not, it runs the same program
// again, with the same arguments, as root of a user, network and mount namespace
// of its own, waits, and exits with that program's exit code: it then never
// returns. Call it before doing anything that must not be done twice. The error
// says what this machine lacks.
func Enter() error {
	err := mayUnshare()
	if err == nil {
		return nil
	}
	if os.Getenv(enteredVariable) != "" {
		return fmt.Errorf("no network namespaces even as root of a user namespace: %w%s", err, hints())
	}
	code, err := reexec()
	if err != nil {
		return fmt.Errorf("not root, and no user namespace of our own: %w%s", err, hints())
	}
	os.Exit(code)
	return nil
}

func mayUnshare() error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		return nil
	})
}

// reexec runs this program in namespaces of its own and returns its exit code.
func reexec() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), enteredVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// The death signal is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// hints names the usual reasons why a user may not have namespaces.
func hints() string {
	var b strings.Builder
	for _, knob := range []struct{ path, bad, why string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user namespaces are switched off"},
		{"/proc/sys/user/max_net_namespaces", "0", "network namespaces are switched off"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "user namespaces are reserved for root"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor denies rights in user namespaces"},
	} {
		value, err := os.ReadFile(knob.path)
		if err == nil && strings.TrimSpace(string(value)) == knob.bad {
			fmt.Fprintf(&b, "\n  %s is %s: %s", knob.path, knob.bad, knob.why)
		}
	}
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		b.WriteString("\n  this kernel has no user namespaces")
	}
	b.WriteString("\n  needed: CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root; in a container --privileged), or user namespaces")
	return b.String()
}

// Need is something a test package requires of the machine. It returns an error
// that says what is missing.
type Need func() error

// skipping tells whether kernel tests may be skipped instead of failing.
func skipping() bool { return os.Getenv("PORTCULLIS_KERNEL_TESTS") == "skip" }

// Main is the body of TestMain for packages with kernel tests: it calls Enter,
// checks the needs, runs the tests and exits. If that is impossible it says why
// and fails, unless PORTCULLIS_KERNEL_TESTS=skip is set: then the tests run
// nevertheless and those that call [Require] are skipped.
func Main(m interface{ Run() int }, needs ...Need) {
	err := Enter()
	if err == nil {
		err = check(needs)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kernel tests cannot run here: %v\n", err)
		if !skipping() {
			fmt.Fprintln(os.Stderr, "set PORTCULLIS_KERNEL_TESTS=skip to skip them")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// Require skips a test when the laboratory or one of the needs cannot be had
// and PORTCULLIS_KERNEL_TESTS=skip is set. It is for packages whose TestMain is
// [Main], which has already failed where skipping is not wanted.
func Require(t interface {
	Helper()
	Skip(args ...any)
}, needs ...Need) {
	t.Helper()
	if !skipping() {
		return
	}
	if err := errors.Join(mayUnshare(), check(needs)); err != nil {
		t.Skip(err)
	}
}

func check(needs []Need) error {
	var errs []error
	for _, need := range needs {
		errs = append(errs, need())
	}
	return errors.Join(errs...)
}

// NFTables is a Need: nf_tables with sets, connection tracking and NAT.
func NFTables() error {
	n, err := newNamespace(nil)
	if err != nil {
		return err
	}
	defer n.close()
	conn, err := nftables.New(nftables.WithNetNSFd(n.fd()))
	if err != nil {
		return fmt.Errorf("kernel without nf_tables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "need", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "nat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("kernel without nf_tables for inet, NAT or connection tracking: %w", err)
	}
	return nil
}

// NFTBinary is a Need: the nft program.
func NFTBinary() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return fmt.Errorf("the nft program is missing (package nftables): %w", err)
	}
	return nil
}

// BridgeNetfilter is a Need: the br_netfilter module, which [Bridged] wants.
func BridgeNetfilter() error {
	n, err := newNamespace(nil)
	if err != nil {
		return err
	}
	defer n.close()
	return n.in(bridgeNetfilterHere)
}

func bridgeNetfilterHere() error {
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil {
		return fmt.Errorf("kernel module br_netfilter is not loaded (as root: modprobe br_netfilter): %w", err)
	}
	return nil
}
