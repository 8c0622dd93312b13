package main

import (
	"golang.org/x/sys/unix"
)

// pairs are the kernel's drivers of interfaces that come in pairs, one end of which
// is in the pod.
var pairs = []string{"veth", "netkit"}

// hostInterface returns the node's end of the pod's interface, or nothing if the
// result does not make it certain. Results name the node's interfaces without saying
// what they are: the plugin "ptp" has one, "bridge" has the bridge before it, others
// name interfaces that do not exist. So the kernel is asked; a bridge that was taken
// for a pod's interface would be worse than none.
func hostInterface(r *result, driver func(string) string) string {
	found := ""
	for _, i := range r.Interfaces {
		if i.Sandbox != "" {
			continue
		}
		for _, pair := range pairs {
			if driver(i.Name) != pair {
				continue
			}
			if found != "" && found != i.Name {
				return ""
			}
			found = i.Name
		}
	}
	return found
}

// driverOf returns the driver of an interface of this network namespace, which is
// the node's, or nothing if it has none or does not exist.
func driverOf(name string) string {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(s)
	info, err := unix.IoctlGetEthtoolDrvinfo(s, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
