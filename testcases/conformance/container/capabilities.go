package container

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// byDefault is what container runtimes leave to root.
var byDefault = map[corev1.Capability]int{
	"AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CHOWN": unix.CAP_CHOWN, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE,
	"FOWNER": unix.CAP_FOWNER, "FSETID": unix.CAP_FSETID, "KILL": unix.CAP_KILL, "MKNOD": unix.CAP_MKNOD,
	"NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "NET_RAW": unix.CAP_NET_RAW, "SETFCAP": unix.CAP_SETFCAP,
	"SETGID": unix.CAP_SETGID, "SETPCAP": unix.CAP_SETPCAP, "SETUID": unix.CAP_SETUID, "SYS_CHROOT": unix.CAP_SYS_CHROOT,
}

// onRequest is what containers of the manifests may ask for beyond that.
var onRequest = map[corev1.Capability]int{"NET_ADMIN": unix.CAP_NET_ADMIN}

// Capabilities returns the numbers of what a container may do that is not privileged. It
// refuses names that it does not know.
func Capabilities(s *corev1.SecurityContext) ([]int, error) {
	var add, drop []corev1.Capability
	if s != nil && s.Capabilities != nil {
		add, drop = s.Capabilities.Add, s.Capabilities.Drop
	}
	var keep []int
	for name, number := range byDefault {
		if !slices.Contains(drop, name) && !slices.Contains(drop, "ALL") {
			keep = append(keep, number)
		}
	}
	for _, name := range add {
		number, ok := onRequest[name]
		if !ok {
			number, ok = byDefault[name]
		}
		if !ok {
			return nil, fmt.Errorf("capability %s is not known here", name)
		}
		keep = append(keep, number)
	}
	slices.Sort(keep)
	return slices.Compact(keep), nil
}

// check refuses what is asked of a runtime and would be ignored here.
func check(s *corev1.SecurityContext) error {
	switch {
	case s == nil:
		return nil
	case s.RunAsUser != nil && *s.RunAsUser != 0:
		return errors.New("every container runs as root here")
	case s.Privileged != nil && *s.Privileged:
		return errors.New("there are no privileged containers here")
	}
	return nil
}
