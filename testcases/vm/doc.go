// Command vm runs the tests with packets on another kernel than this machine's.
//
//	vm [--kernel 6.1] [--suite bullseye] [--set ci|all|conformance]
//
// It takes the newest kernel package of a series from Debian, and never installs
// it: vmlinuz and the modules that the tests need go into an initramfs, next to
// statically built test binaries, the nft program and an init (package guest).
// qemu boots that in software emulation, so that neither KVM nor any right is
// needed. A boot takes some seconds, and everything afterwards ten times as long
// as usual: PORTCULLIS_SLOWDOWN tells the laboratory to wait as much longer.
//
// Debian's kernels have what kernels made for virtual machines often lack: SCTP
// sockets, which the laboratory uses where it finds them, and IPVS. The set conformance
// runs the specs of the upstream suite that need such sockets: a control plane, two
// nodes with kube-proxy and the agent, all in the machine.
//
// The guest says on a second serial line how each test binary has ended, and that
// it has come to its end. Whatever prevents that, a kernel panic, a module that
// cannot be loaded, a hang, makes the command fail: the exit code is 0 only if
// every binary was seen to end with 0.
//
// The machine must be amd64 and have apt-get, dpkg-deb, xz and qemu-system-x86_64.
// Packages and lists are kept in the folder --dir, and nothing elsewhere.
package main
