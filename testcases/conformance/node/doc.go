// Package node plays the nodes of a cluster: what a kubelet, a container runtime
// and a CNI plugin do as far as a network policy can tell.
//
// A node is a network namespace of the laboratory and a registered Node object.
// A pod is a network namespace on it, with addresses of the node's podCIDRs; its
// containers are processes inside. The only image is agnhost: whatever the image
// is called, its command must be agnhost's. Pod status is what a kubelet would
// report, and each node answers exec requests of the API server. Pods without a
// node are bound to the nodes in turn.
//
// There are no volumes, no tokens, no probes (a container that runs is ready)
// and no resource limits.
package node
