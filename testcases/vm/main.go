package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	kernel, suite string
	set           string
	run           string
	dir           string
	memory        string
	cpus          int
	slowdown      int
	limit         time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", "6.1", "series of the kernel: the newest package of it is used; empty for the newest of all")
	flag.StringVar(&o.suite, "suite", "", "Debian release to take it from, as bullseye or sid; empty for the machine's own package sources")
	flag.StringVar(&o.set, "set", "ci", "what to run: ci, a selection of the packet tests; all of them; or conformance, the upstream specs that need SCTP sockets")
	flag.StringVar(&o.run, "run", "", "run only these tests of one suite (nft, lab, lab-packets, testcases, conformance): testcases=TestCases/hairpin")
	flag.StringVar(&o.dir, "dir", "bin/vm", "folder for packages, and for what is built")
	flag.StringVar(&o.memory, "memory", "", "memory of the machine; empty means 2G, or 6G for --set conformance")
	flag.IntVar(&o.cpus, "cpus", 0, "processors of the machine; 0 means 2, or 4 for --set conformance")
	flag.IntVar(&o.slowdown, "slowdown", 4, "how many times longer the tests wait for packets")
	flag.DurationVar(&o.limit, "timeout", 0, "after which the machine is taken to hang; 0 means 10 minutes, or 40 for --set all and 20 for conformance")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	o.complete()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

// complete fills in what depends on the set.
func (o *options) complete() {
	limit, memory, cpus := 10*time.Minute, "2G", 2
	switch o.set {
	case "all":
		limit *= 4
	case setConformance:
		limit, memory, cpus = 20*time.Minute, "6G", conformanceCPUs
	}
	o.limit, o.memory, o.cpus = cmp.Or(o.limit, limit), cmp.Or(o.memory, memory), cmp.Or(o.cpus, cpus)
}

func run(ctx context.Context, o options) error {
	if err := check(); err != nil {
		return err
	}
	module, err := moduleRoot()
	if err != nil {
		return err
	}
	list, err := chosen(o, module)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	k, err := fetchKernel(ctx, o)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.dir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := build(ctx, module, work, list); err != nil {
		return err
	}
	m := machine{
		image: filepath.Join(work, "vmlinuz"), initrd: filepath.Join(work, "initrd"),
		reports: filepath.Join(work, "reports"), memory: o.memory, cpus: o.cpus,
	}
	if err := os.WriteFile(m.image, k.image, 0o644); err != nil {
		return err
	}
	if err := assemble(ctx, m.initrd, module, work, k, list); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return judged(ctx, m, o.limit, k.release, list)
}

func fetchKernel(ctx context.Context, o options) (*kernel, error) {
	debs, err := (&apt{dir: o.dir, suite: o.suite}).fetch(ctx, o.kernel)
	if err != nil {
		return nil, err
	}
	for _, deb := range debs {
		fmt.Println("kernel package:", filepath.Base(deb))
	}
	return readKernel(ctx, debs)
}

// judged boots the machine and says what came of it.
func judged(ctx context.Context, m machine, limit time.Duration, release string, list []suite) error {
	start := time.Now()
	bootErr := m.boot(ctx, limit, os.Stdout)
	var summary string
	var err error
	reports, openErr := os.Open(m.reports)
	if openErr == nil {
		defer reports.Close()
		summary, err = verdict(reports, release, list)
	}
	fmt.Printf("\nThe machine ran for %.0f s:\n%s", time.Since(start).Seconds(), summary)
	if err = errors.Join(bootErr, openErr, err); err == nil {
		fmt.Printf("Everything has passed on Linux %s.\n", release)
	}
	return err
}

// chosen lists the suites that the flags ask for.
func chosen(o options, module string) ([]suite, error) {
	list, err := suites(o.set, module, o.slowdown)
	for i := range list {
		list[i].limit = o.limit - o.limit/5 // the rest is for the boot, and for showing the logs
	}
	if err != nil || o.run == "" {
		return list, err
	}
	name, tests, _ := strings.Cut(o.run, "=")
	for _, s := range list {
		if s.name == name {
			s.tests = cmp.Or(tests, ".")
			return []suite{s}, nil
		}
	}
	return nil, fmt.Errorf("--run %s: no suite %q", o.run, name)
}

// check says what this machine lacks.
func check() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("this machine is %s: kernel packages are taken for amd64 only", runtime.GOARCH)
	}
	var errs []error
	for program, pkg := range map[string]string{
		"qemu-system-x86_64": "qemu-system-x86", "apt-get": "apt", "dpkg-deb": "dpkg", "xz": "xz-utils", "nft": "nftables", "ldd": "libc-bin",
	} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing (Debian package %s)", program, pkg))
		}
	}
	return errors.Join(errs...)
}

// moduleRoot finds the folder with go.mod, from which packages are built.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(out))
	if err != nil || file == "" || file == os.DevNull {
		return "", fmt.Errorf("not inside of a Go module: %w", errors.Join(err, os.ErrNotExist))
	}
	return filepath.Dir(file), nil
}
