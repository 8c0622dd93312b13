// Command bench measures Portcullis and prints tables with ratios.
//
//	go run ./testcases/bench [--quick] [--only REGEXP] [--json FILE] [--svg DIR] [--profiles DIR]
//
// It says on standard error what it is doing, and prints the report on standard
// output when it is done, or interrupted: then with what is finished by then.
// Everything happens in network namespaces of its own, which vanish with it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/bench/control"
	"github.com/portcullis-netpol/portcullis/testcases/bench/datapath"
	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// section is a part of the run, which adds its tables to the report.
type section struct {
	name string
	run  func(context.Context, report.Options, *report.Report) error
}

// sections returns all of them; profiles is where those that can put profiles.
func sections(profiles string) []section {
	return []section{
		{"datapath", datapath.Run},
		{"control", func(ctx context.Context, o report.Options, r *report.Report) error {
			return control.Run(ctx, control.Options{Options: o, Profiles: profiles}, r)
		}},
	}
}

func main() {
	control.Child() // a part of the run is measured in processes of its own
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], sections, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// output is where the report goes beside standard output; empty means nowhere.
type output struct{ json, svg, profiles string }

// run measures all sections and writes the report, whatever became of them.
func run(ctx context.Context, args []string, sections func(profiles string) []section, stdout, stderr io.Writer) error {
	o, to, err := options(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	r := &report.Report{Machine: report.ThisMachine(), Started: time.Now(), Quick: o.Quick}
	var errs []error
	for _, s := range sections(to.profiles) {
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, context.Cause(ctx)))
			continue
		}
		start, used := time.Now(), processorTime()
		if err := s.run(ctx, o, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
		o.Say(fmt.Sprintf("%s: %.0f seconds, %.0f of processor time", s.name, time.Since(start).Seconds(), (processorTime() - used).Seconds()))
	}
	return errors.Join(append(errs, r.WriteText(stdout), to.write(r))...)
}

// processorTime is what this process and its children that have ended took until now.
func processorTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if unix.Getrusage(who, &usage) == nil { // it takes nothing that could fail
			sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return sum
}

func options(args []string, stderr io.Writer) (o report.Options, to output, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.Quick, "quick", false, "measure fewer sizes, in fewer rounds")
	only := flags.String("only", "", "make the tables whose name matches this `regexp`")
	flags.StringVar(&to.json, "json", "", "write the samples to this `file`")
	flags.StringVar(&to.svg, "svg", "", "draw the tables into this `directory`")
	flags.StringVar(&to.profiles, "profiles", "", "put CPU and heap profiles of section control into this `directory`")
	if err := flags.Parse(args); err != nil {
		return o, to, err
	}
	if flags.NArg() > 0 {
		return o, to, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *only != "" {
		if o.Only, err = regexp.Compile(*only); err != nil {
			return o, to, fmt.Errorf("--only: %w", err)
		}
	}
	o.Progress = func(line string) { fmt.Fprintln(stderr, line) }
	return o, to, nil
}

// write writes the files that are asked for.
func (to output) write(r *report.Report) error {
	var out bytes.Buffer
	if to.json != "" {
		if err := r.WriteJSON(&out); err != nil {
			return err
		}
		if err := os.WriteFile(to.json, out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if to.svg == "" {
		return nil
	}
	if err := os.MkdirAll(to.svg, 0o755); err != nil {
		return err
	}
	for i := range r.Tables {
		out.Reset()
		if err := r.Tables[i].WriteSVG(&out); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to.svg, r.Tables[i].Name+".svg"), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
