package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/vm/plan"
)

// machine is what qemu is given.
type machine struct {
	image   string // vmlinuz
	initrd  string
	reports string // file that gets what the guest writes to its second serial line
	memory  string // as qemu reads it: "2G"
	cpus    int
}

func (m machine) args() []string {
	return []string{
		"-accel", "tcg,thread=multi", "-smp", strconv.Itoa(m.cpus), "-m", m.memory,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", // so that a panic, which reboots at once, ends qemu
		"-kernel", m.image, "-initrd", m.initrd,
		// The emulated HPET, which the kernel takes instead of the TSC if left to
		// itself, needs ten times as long to say what time it is.
		"-append", "console=ttyS0 panic=-1 oops=panic loglevel=4 random.trust_cpu=on mitigations=off tsc=reliable",
		"-serial", "stdio", "-serial", "file:" + m.reports,
	}
}

// boot runs a machine until it powers itself off, the time is over or ctx ends.
// What it says on its console goes to out.
func (m machine) boot(ctx context.Context, limit time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the machine was not done after %v", limit))
	defer cancel()
	// The death signal comes when the thread that started qemu ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console{w: out}, &complaints
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("qemu: %w\n%s", err, complaints.Bytes())
	}
	return nil
}

// console passes on what a serial line says, without the carriage returns.
type console struct{ w io.Writer }

func (c *console) Write(b []byte) (int, error) {
	if _, err := c.w.Write(bytes.ReplaceAll(b, []byte("\r"), nil)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// verdict reads the guest's reports and says what is wrong with them: a run that
// has failed or is missing, another kernel, an end that is not the end.
func verdict(reports io.Reader, release string, list []suite) (summary string, err error) {
	var text strings.Builder
	var errs []error
	passed := map[string]bool{}
	booted, done := false, false
	for lines := bufio.NewScanner(reports); lines.Scan(); {
		var r plan.Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return text.String(), fmt.Errorf("the guest reported %q: %w", lines.Text(), err)
		}
		switch {
		case r.Kernel != "":
			booted = r.Kernel == release
			fmt.Fprintf(&text, "  %-12s %s\n", "kernel", r.Kernel)
		case r.Run != "":
			passed[r.Run] = r.Exit == 0
			fmt.Fprintf(&text, "  %-12s exit code %d after %.0f s\n", r.Run, r.Exit, r.Seconds)
		case r.Error != "":
			errs = append(errs, fmt.Errorf("guest: %s", r.Error))
		}
		done = done || r.Done
	}
	if !booted {
		errs = append(errs, fmt.Errorf("kernel %s was not seen to boot", release))
	}
	for _, s := range list {
		if ok, ran := passed[s.name]; !ok {
			errs = append(errs, fmt.Errorf("%s did not pass (ended: %v)", s.name, ran))
		}
	}
	if !done {
		errs = append(errs, errors.New("the guest did not come to its end"))
	}
	return text.String(), errors.Join(errs...)
}
