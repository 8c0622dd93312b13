// Package policy compiles Kubernetes NetworkPolicies, pods and namespaces into
// the plain data that one node has to enforce (package ir), and keeps it up to
// date as the objects change.
package policy
