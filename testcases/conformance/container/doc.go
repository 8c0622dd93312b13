// Package container is what a container runtime does for a container: a root folder of its
// own with the image's programs and the volumes, and of root's capabilities only those of
// the container. The network namespace is its pod's and comes with what is started.
//
// There are no cgroups, no PID namespace and no seccomp filter.
package container
