// Package ir is the compiled form of policies: what one node has to enforce, as
// plain data.
//
// It stands between the compiler (package policy), which knows Kubernetes
// objects and nothing of the kernel, and package nft, which knows the kernel and
// nothing of Kubernetes. It imports the standard library only.
//
//	Endpoint (address of a local pod)
//	   ├─ Ingress ─► Group ─► Steps ─► Rules ─► PeerSet (addresses and blocks)
//	   └─ Egress  ─► Group ─► …
//
// Groups and PeerSets are named by a hash of their content. So the compiled form
// of a cluster is a function of its objects alone and not of the order in which
// they came, an object that two policies share exists once, and a change of a
// policy is always "new objects, switch, old objects gone", which is the order
// in which the kernel can be changed without a wrong verdict in between.
//
// Only the addresses of a PeerSet and the list of Endpoints change as pods come
// and go.
//
// The compiled form says nothing of chains, maps or sets: another layout of the
// table can be built from it.
package ir
