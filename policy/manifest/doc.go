// Package manifest reads Kubernetes objects from YAML and JSON files, for everything that works without an API server:
// the agent's manifest directory, the offline commands, the demo and the test cases.
//
// It is as strict as the API server with strict field validation, and stricter where silence would be dangerous: what is
// not understood is an error that names the file, the document, the object and the field, because a NetworkPolicy that
// is dropped silently leaves its pods open. Only kinds that have nothing to do with who may talk to whom are passed over.
//
// # What is done to the objects
//
// The parts of an API server and of its controllers that are missed here:
//
//   - A namespaced object without a namespace is put into "default".
//   - A namespace that is used and not given is made; every namespace has the label kubernetes.io/metadata.name.
//   - A workload (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, ReplicationController) becomes pods named
//     after it, with -0, -1 and so on at the end. If another pod has the name, the workload's kind is put in between. A
//     workload of which pods are given, or which is controlled by another given workload, makes none; so the output of
//     "kubectl get all -o yaml" can be read as it is.
//   - Place puts pods on nodes and hands out addresses.
//
// # Reading and validating
//
// Decode reads one file and Merge joins files, so that a caller can go on without a file that is broken. Read does both
// for paths. None of them looks at whether values make sense: whoever enforces policies must stand up to policies that
// do not. Validate does that, and Load is Read followed by Validate.
package manifest
