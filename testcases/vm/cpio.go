package main

import (
	"fmt"
	"io"
	"path"
)

// File types of cpio entries, as in stat(2).
const (
	cpioDir    = 0o040000
	cpioFile   = 0o100000
	cpioDevice = 0o020000 // of characters
)

// cpioWriter writes the archive format "newc" that the kernel reads as initramfs.
// Parents of what is added are made as needed. Everything belongs to root.
type cpioWriter struct {
	w     io.Writer
	err   error // of the first write that failed; sticky
	inode int
	dirs  map[string]bool
}

func newCPIO(w io.Writer) *cpioWriter { return &cpioWriter{w: w, dirs: map[string]bool{"/": true}} }

// dir adds a folder, unless it is there.
func (c *cpioWriter) dir(name string) {
	name = path.Clean("/" + name)
	if c.dirs[name] {
		return
	}
	c.dir(path.Dir(name))
	c.dirs[name] = true
	c.entry(name, cpioDir|0o755, 0, 0, nil)
}

// file adds a regular file.
func (c *cpioWriter) file(name string, permissions uint32, data []byte) {
	name = path.Clean("/" + name)
	c.dir(path.Dir(name))
	c.entry(name, cpioFile|permissions, 0, 0, data)
}

// device adds a character device.
func (c *cpioWriter) device(name string, permissions, major, minor uint32) {
	name = path.Clean("/" + name)
	c.dir(path.Dir(name))
	c.entry(name, cpioDevice|permissions, major, minor, nil)
}

// close ends the archive and returns the first error.
func (c *cpioWriter) close() error {
	c.inode = -1
	c.entry("/TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	if c.err != nil {
		return
	}
	if uint64(len(data)) > 0xffffffff {
		c.err = fmt.Errorf("cpio: %s is too large", name)
		return
	}
	c.inode++
	name = name[1:] // names are relative to the root
	header := "070701"
	for _, field := range []uint32{
		uint32(c.inode), mode, 0, 0, 1, 0, uint32(len(data)), // inode, mode, user, group, links, time, size
		0, 0, major, minor, uint32(len(name) + 1), 0, // device of the file, device that it is, name, check
	} {
		header += fmt.Sprintf("%08x", field)
	}
	c.padded([]byte(header + name + "\x00"))
	c.padded(data)
}

// padded writes data and zeroes up to the next multiple of four. Every entry
// begins at one.
func (c *cpioWriter) padded(data []byte) {
	if c.err != nil {
		return
	}
	if _, c.err = c.w.Write(data); c.err == nil {
		_, c.err = c.w.Write(make([]byte, -len(data)&3))
	}
}
