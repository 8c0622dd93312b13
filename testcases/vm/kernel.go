package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// kernel is what the tests need of a kernel package.
type kernel struct {
	release string // as uname says it
	image   []byte // vmlinuz
	modules []moduleFile
}

// moduleFile is a module ready to be loaded.
type moduleFile struct {
	name string
	data []byte
}

// readKernel takes a kernel out of its packages.
func readKernel(ctx context.Context, debs []string) (*kernel, error) {
	c := newContents()
	for _, deb := range debs {
		if err := c.addPackage(ctx, deb); err != nil {
			return nil, err
		}
	}
	k, err := c.kernel()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(debs, ", "), err)
	}
	return k, nil
}

// addPackage reads a package file.
func (c *contents) addPackage(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := c.add(out); err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(fmt.Errorf("read %s: %w", deb, err), cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb %s: %w", deb, err)
	}
	return nil
}

// contents is what of the packages may be needed.
type contents struct {
	release string
	image   []byte
	builtIn map[string]bool
	files   map[string]packedModule
}

type packedModule struct {
	file string
	data []byte
}

func newContents() *contents {
	return &contents{builtIn: map[string]bool{}, files: map[string]packedModule{}}
}

// add reads a package's files, a tar archive, to the end.
func (c *contents) add(r io.Reader) error {
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + header.Name)
		release, isImage := imageRelease(name)
		isBuiltIn := path.Base(name) == "modules.builtin"
		if header.Typeflag != tar.TypeReg || !isImage && !isBuiltIn && !mayBeNeeded(name) {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		switch {
		case isImage:
			c.release, c.image = release, data
		case isBuiltIn:
			for file := range strings.FieldsSeq(string(data)) {
				c.builtIn[moduleName(file)] = true
			}
		default:
			c.files[moduleName(name)] = packedModule{name, data}
		}
	}
	// Some padding may follow; the other side must be able to write it.
	_, err := io.Copy(io.Discard, r)
	return err
}

// imageRelease tells the release of a kernel image by its file name.
func imageRelease(name string) (string, bool) {
	if release, ok := strings.CutPrefix(name, "/boot/vmlinuz-"); ok {
		return release, true
	}
	dir, file := path.Split(name)
	return path.Base(dir), file == "vmlinuz" && path.Dir(path.Clean(dir)) == "/usr/lib/modules"
}

// mayBeNeeded keeps the modules of most drivers out of memory.
func mayBeNeeded(name string) bool {
	if moduleName(name) == "" {
		return false
	}
	for _, part := range []string{"/kernel/net/", "/kernel/lib/", "/kernel/crypto/", "/kernel/arch/", "/kernel/drivers/net/"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// kernel chooses the modules. Besides the lists it loads every one of nft's own.
func (c *contents) kernel() (*kernel, error) {
	if c.image == nil {
		return nil, errors.New("no vmlinuz in the package")
	}
	expressions := slices.DeleteFunc(slices.Sorted(maps.Keys(c.files)), func(name string) bool {
		return !strings.HasPrefix(name, "nft_")
	})
	data := map[string][]byte{}
	depends := func(name string) ([]string, bool, error) {
		packed, ok := c.files[name]
		if !ok {
			return nil, false, nil
		}
		var err error
		if data[name], err = unpacked(packed.file, packed.data); err != nil {
			return nil, true, err
		}
		needs, err := dependencies(data[name])
		return needs, true, err
	}
	order, err := moduleOrder(needed, slices.Concat(wanted, expressions), c.builtIn, depends)
	if err != nil {
		return nil, err
	}
	k := &kernel{release: c.release, image: c.image}
	for _, name := range order {
		k.modules = append(k.modules, moduleFile{name, data[name]})
	}
	return k, nil
}
