// Package fleet asks the agents of a cluster: it finds their pods and runs a command in
// each, through the exec subresource of the API server. So whoever may exec into these
// pods may ask, and nobody else; no agent listens on the network for it.
//
// What agents answer is data from the nodes: bounded in size here, and for the caller to
// decode and to make printable.
package fleet
