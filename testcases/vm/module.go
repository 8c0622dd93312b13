package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// needed lists the modules without which a test could not do its work. A kernel
// that has them neither as a module nor built in is refused.
var needed = []string{
	"veth", "bridge", "br_netfilter", "dummy",
	"nf_tables", "nf_conntrack", "nf_nat", "nf_conntrack_netlink", "nfnetlink_queue", "nfnetlink_log",
	"nf_conntrack_bridge", "nf_reject_ipv4", "nf_reject_ipv6",
	"sctp", "ip_vs", "ip_vs_rr",
}

// wanted lists what some kernels have under another name, or in another module.
// They are loaded before the needed ones: SCTP asks for its checksum by name, and
// there is no modprobe in the guest to look for it. Nor is there for whoever opens a
// netlink socket of the family XFRM, as the netlink library of the agent does.
var wanted = []string{"xfrm_user", "crc32c_generic", "md5", "sha1_generic", "hmac", "nf_log_syslog", "nf_log_ipv4", "nf_log_ipv6"}

// moduleName returns the name of the module in a file, or "".
func moduleName(file string) string {
	name, _, ok := strings.Cut(path.Base(file), ".ko")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_") // the kernel takes both for the same
}

// unpacked returns a module file's contents as the kernel wants to see them.
func unpacked(file string, data []byte) ([]byte, error) {
	programs := map[string]string{".ko": "", ".xz": "xz", ".zst": "zstd", ".gz": "gzip"}
	program, ok := programs[path.Ext(file)]
	if !ok {
		return nil, fmt.Errorf("%s: unknown compression", file)
	}
	if program == "" {
		return data, nil
	}
	cmd := exec.Command(program, "-dc")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return out, nil
}

// dependencies reads the names of the modules that a module needs. depmod would
// read them from the same place; packages come without its result.
func dependencies(data []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseDepends(info), nil
}

// parseDepends reads a .modinfo section: "key=value", each ended by a zero.
func parseDepends(info []byte) []string {
	var out []string
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				out = append(out, strings.ReplaceAll(name, "-", "_"))
			}
		}
	}
	return out
}

// moduleOrder lists modules in an order in which they can be loaded: each after
// those that it depends on, and otherwise as asked for. Built-in ones are left
// out. Of the optional ones those that do not exist are left out, too.
func moduleOrder(required, optional []string, builtIn map[string]bool, depends func(string) ([]string, bool, error)) ([]string, error) {
	var order []string
	var visit func(name string, way []string) error
	visit = func(name string, way []string) error {
		if builtIn[name] || slices.Contains(order, name) {
			return nil
		}
		if slices.Contains(way, name) {
			return fmt.Errorf("modules depend on each other: %s", strings.Join(append(way, name), ", "))
		}
		needs, exists, err := depends(name)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		if !exists && len(way) == 0 && slices.Contains(optional, name) {
			return nil
		}
		if !exists {
			return fmt.Errorf("the kernel has no module %s", strings.Join(append(way, name), ", which needs "))
		}
		for _, n := range needs {
			if err := visit(n, append(slices.Clone(way), name)); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Concat(optional, required) {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return order, nil
}
