// Package node plays the nodes of a cluster: what a kubelet, a container runtime
// and a CNI plugin do as far as a network policy can tell, and as far as the pods of
// the manifests need it.
//
// A node is a network namespace of the laboratory and a registered Node object.
// A pod is a network namespace on it, with addresses of the node's podCIDRs; its
// containers are processes inside, each with a root folder of its own. An image is
// agnhost, whatever it is called, unless it is called portcullis, and has one program.
// Pod status is what a kubelet would report, and each node answers exec requests of the
// API server, and requests for the logs of agents. Pods without a node are bound to the
// nodes in turn.
//
// Volumes are hostPaths of the kind DirectoryOrCreate, each node's being a folder of its
// own. Containers of pods that name a service account have its token. Readiness probes by
// HTTP are asked; without one a container that runs is ready. Liveness and startup probes,
// and what a container may consume, are ignored.
package node
