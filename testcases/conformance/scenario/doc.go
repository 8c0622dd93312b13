// Package scenario is Portcullis's own test cases over a real API server: stories
// of several steps that the upstream suite does not tell, on pods of package node.
//
// A step changes objects through the API and then says which flows are open and
// which closed. It asks the network until all of that holds, twice in a row, and
// gives up after Config.Patience: nothing is slept for. Every flow is tried with
// IPv4 and with IPv6, as a new TCP connection from inside the pod's network
// namespace. Whatever has to be closed in one step is reached in another step, or by
// somebody else, so that a server that is not there cannot pass for a policy; and
// every case fails where no agent runs.
package scenario
