// Command guest is the init of the virtual machine that the command vm boots.
//
// It makes the usual mounts, loads the modules of its plan, runs the programs,
// reports on the second serial line, and powers the machine off.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/vm/plan"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the init of a virtual machine, and nothing else")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	panic(err) // the end of init is a kernel panic, which ends the machine, too
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	line, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	report := func(r plan.Report) error {
		data, err := json.Marshal(r)
		if err == nil {
			_, err = line.Write(append(data, '\n'))
		}
		return err
	}
	if err := carryOut(report); err != nil {
		return errors.Join(err, report(plan.Report{Error: err.Error()}))
	}
	return report(plan.Report{Done: true})
}

func carryOut(report func(plan.Report) error) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if err := report(plan.Report{Kernel: unix.ByteSliceToString(name.Release[:])}); err != nil {
		return err
	}
	data, err := os.ReadFile(plan.File)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	if err := prepare(p.Modules); err != nil {
		return err
	}
	for _, r := range p.Runs {
		fmt.Printf("== %s\n", r.Name)
		start := time.Now()
		code, err := execute(r)
		if err != nil {
			return fmt.Errorf("run %s: %w", r.Name, err)
		}
		seconds := time.Since(start).Seconds()
		fmt.Printf("== %s: exit code %d after %.0f s\n", r.Name, code, seconds)
		if code != 0 {
			showLogs(r.Logs)
		}
		if err := report(plan.Report{Run: r.Name, Exit: code, Seconds: seconds}); err != nil {
			return err
		}
	}
	return nil
}

// showLogs prints the ends of files, of which nothing is left after the power-off.
func showLogs(patterns []string) {
	const most = 6000 // bytes of each
	for _, pattern := range patterns {
		files, _ := filepath.Glob(pattern) // a malformed pattern matches nothing
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				data = []byte(err.Error())
			}
			fmt.Printf("== end of %s:\n%s\n", file, data[max(0, len(data)-most):])
		}
	}
}

func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.at, err)
		}
	}
	return nil
}

// prepare loads the modules and lifts what limits tests.
func prepare(modules []string) error {
	for _, m := range modules {
		if err := load(m); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(m), err)
		}
	}
	files := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	// Without a name of its own a control plane cannot register itself.
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return loopbackUp()
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// loopbackUp does what "ip link set lo up" does.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

func execute(r plan.Run) (int, error) {
	ctx := context.Background()
	if r.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Limit)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, r.Path, r.Args...)
	cmd.Cancel = func() error {
		fmt.Printf("== %s is not done after %v\n", r.Name, r.Limit)
		return cmd.Process.Signal(unix.SIGTERM)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.Dir, os.Stdout, os.Stderr
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "TMPDIR=/tmp"}, r.Env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
