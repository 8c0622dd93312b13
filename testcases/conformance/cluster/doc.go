// Package cluster runs a Kubernetes cluster on a laboratory of network
// namespaces: etcd, API server and controller manager on the host outside, and
// on each node kube-proxy, the pods (package node) and a Portcullis agent, which
// may do only what the manifests allow. All are the real programs.
//
// Nothing is left when the program ends: the namespaces are anonymous, the
// processes die with it, and all files are in one folder of the caller's.
package cluster
