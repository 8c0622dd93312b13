package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

// options are the flags and SOURCE_DATE_EPOCH.
type options struct {
	source    string // directory of the module that has the programs
	out       string // file of the archive; empty: none
	rootfs    string // directory to write the image's files to; empty: none
	name      string // the image's name, in full, with a tag
	version   string
	revision  string   // commit; may be empty
	platforms []string // words like linux/amd64
	created   time.Time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := parse(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"))
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string, epoch string) (*options, error) {
	o := &options{}
	platforms := ""
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.source, "source", "../..", "`directory` of Portcullis's module")
	flags.StringVar(&o.out, "out", "", "write the OCI archive to this `file`")
	flags.StringVar(&o.rootfs, "rootfs", "", "write the files of the image of the only platform to this `directory`")
	flags.StringVar(&o.name, "name", "docker.io/library/portcullis:latest", "the image's full `name`, with a tag, under which a container runtime imports it")
	flags.StringVar(&o.version, "version", "unknown", "version that the programs and the image's labels name")
	flags.StringVar(&o.revision, "revision", "", "commit that the image's labels name")
	flags.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64", "`list` of platforms")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.platforms = strings.Split(platforms, ",")
	seconds := int64(0)
	if epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil || seconds < 0 {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
		}
	}
	o.created = time.Unix(seconds, 0).UTC()
	return o, o.validate(flags)
}

func (o *options) validate(flags *flag.FlagSet) error {
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected arguments: %q", flags.Args()))
	}
	if (o.out == "") == (o.rootfs == "") {
		errs = append(errs, errors.New("one of --out and --rootfs is needed"))
	}
	if o.rootfs != "" && len(o.platforms) != 1 {
		errs = append(errs, errors.New("--rootfs is for one of --platforms"))
	}
	for _, p := range o.platforms {
		if arch, ok := strings.CutPrefix(p, "linux/"); !ok || arch == "" || strings.Contains(arch, "/") {
			errs = append(errs, fmt.Errorf("--platforms: %q is not linux/ARCHITECTURE", p))
		}
	}
	if _, _, err := splitName(o.name); err != nil {
		errs = append(errs, fmt.Errorf("--name: %w", err))
	}
	return errors.Join(errs...)
}

func run(ctx context.Context, o *options) error {
	contents := map[string]*content{}
	for _, platform := range o.platforms {
		c, err := build(ctx, o, platform)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		contents[platform] = c
	}
	if o.rootfs != "" {
		return contents[o.platforms[0]].write(o.rootfs)
	}
	index, err := newIndex(o, contents)
	if err != nil {
		return err
	}
	return writeArchive(o, index)
}
