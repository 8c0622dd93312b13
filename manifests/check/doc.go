// Package check has no code, only tests: of what the manifests and the Helm chart beside
// it install. It is a module of its own, so that Helm and Kustomize stay out of
// Portcullis's.
//
// Both are rendered with the libraries of their own programs, and every object is decoded
// strictly into its type of the Kubernetes API. With its default values the chart gives
// what Kustomize does, object by object, and with the values for it what Kustomize gives
// with each component. So what the tests of cmd/portcullis say about the manifests
// holds for the chart, too. What other values change is in testdata: NAME.values.yaml and
// the objects that come of it, NAME.yaml, which `go test . -update` writes anew. The flags
// of each container are given to the real command.
//
// The alerts are evaluated by Prometheus's engine, on series made for it, and what they
// and the dashboard ask for is compared with the metrics of a real agent, in a network of
// its own: that needs root or user namespaces. The ServiceMonitor has to select the Service,
// and that one the agents.
//
// Run them with -count=1: what they read is outside of this module, where the go command
// does not look for changes.
//
// A real API server judges the same objects: the program of testcases/conformance gives
// it the manifests and testdata/*.yaml with `kubectl apply --dry-run=server`; not those of
// testdata/crds, whose kinds it does not know.
package check
