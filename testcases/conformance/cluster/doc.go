// Package cluster runs a Kubernetes cluster on a laboratory of network
// namespaces: etcd, API server and controller manager on the host outside, and
// on each node kube-proxy and the pods (package node). Portcullis agents are either
// started by StartAgents, and may do what the manifests allow and no more, or they are
// pods, once somebody applies the manifests. All are the real programs.
//
// Nothing is left when the program ends: the namespaces are anonymous, the
// processes die with it, and all files are in one folder of the caller's.
package cluster
