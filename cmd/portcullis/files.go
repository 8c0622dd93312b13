package main

import (
	"net/netip"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
)

// addFiles adds the flag that names files and directories of manifests.
func addFiles(to *pflag.FlagSet, files *[]string) {
	to.StringArrayVarP(files, "filename", "f", nil, "file or directory of Kubernetes YAML or JSON, or - for stdin (repeatable)")
}

// podAddrs returns the addresses that the pod's status names, unmapped, as far as they
// are addresses.
func podAddrs(p *corev1.Pod) []netip.Addr {
	texts := []string{p.Status.PodIP}
	if len(p.Status.PodIPs) > 0 {
		texts = nil
		for _, ip := range p.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	}
	var addrs []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}
