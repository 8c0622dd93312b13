// Package demo shows real policies decide real packets, on one machine and
// without a cluster.
//
// It builds a network laboratory (package lab) with two nodes and a host outside
// the cluster, gives each pod servers on its ports, and starts the real agent as a
// process of its own in each node's network namespace. All agents follow one
// directory of manifests. Each [step] of the story swaps that directory for a new
// one, atomically, by renaming a symbolic link, and then
//
//   - keeps trying some of the connections that the step changes, to see when the
//     first packets are judged anew,
//   - waits until both agents have logged that the directory's revision is in force,
//   - tries every connection of the table, and compares each cell with what
//     evaluate.Evaluate expects.
//
// The first difference ends the story with a [MismatchError].
package demo
