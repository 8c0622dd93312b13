package main

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/testcases/vm/plan"
)

// image is an initramfs in the making.
type image struct {
	*cpioWriter
	file      *os.File
	buf       *bufio.Writer
	libraries map[string]bool // that are in it
}

func newImage(path string) (*image, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	buf := bufio.NewWriterSize(f, 1<<20)
	im := &image{newCPIO(buf), f, buf, map[string]bool{}}
	// The kernel opens the console for init before init can mount /dev.
	im.device("/dev/console", 0o600, 5, 1)
	im.device("/dev/null", 0o666, 1, 3)
	return im, nil
}

// finish writes what is missing and closes the file.
func (im *image) finish() error {
	return errors.Join(im.close(), im.buf.Flush(), im.file.Close())
}

// add copies a file.
func (im *image) add(from, to string, permissions uint32) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	im.cpioWriter.file(to, permissions, data)
	return nil
}

// tree copies a folder, or one file.
func (im *image) tree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return im.add(path, filepath.Join(to, rel), 0o644)
	})
}

// program copies a program of this machine with the libraries that it is linked to.
func (im *image) program(ctx context.Context, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	return im.executable(ctx, path, "/usr/sbin/"+name)
}

// executable copies an executable file with the libraries that it is linked to, if
// any.
func (im *image) executable(ctx context.Context, from, to string) error {
	if err := im.add(from, to, 0o755); err != nil {
		return err
	}
	if static, err := isStatic(from); static || err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", from).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", from, err)
	}
	for _, lib := range libraries(string(out)) {
		if im.libraries[lib] {
			continue
		}
		im.libraries[lib] = true
		if err := im.add(lib, lib, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// isStatic tells whether a program needs no dynamic linker. ldd fails for those.
func isStatic(file string) (bool, error) {
	program, err := elf.Open(file)
	if err != nil {
		return false, err
	}
	defer program.Close()
	return !slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

// libraries reads the output of ldd: "name => /path (address)", and for the
// dynamic linker "/path (address)".
func libraries(ldd string) []string {
	var out []string
	for line := range strings.Lines(ldd) {
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(word, "/") {
				out = append(out, word)
				break
			}
		}
	}
	return out
}

// kernel adds the modules, and returns them as paths in the order of loading.
func (im *image) kernel(k *kernel) []string {
	var out []string
	for _, m := range k.modules {
		path := "/modules/" + m.name + ".ko"
		im.cpioWriter.file(path, 0o644, m.data)
		out = append(out, path)
	}
	return out
}

func (im *image) plan(p plan.Plan) error {
	data, err := json.MarshalIndent(p, "", "  ")
	im.cpioWriter.file(plan.File, 0o644, data)
	return err
}
