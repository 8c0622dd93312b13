// Package cni is what the agent and its CNI plugin have in common: the plugin's
// settings, and the local socket over which the plugin tells the agent about pods
// before their first process runs.
//
//	container runtime ──CNI──► portcullis-cni ──Client──► socket ──Server──► Handler
//	                           (chained plugin)                              (the agent)
//
// # What the socket carries
//
// A connection carries one Request and one answer, each a line of JSON. Neither is
// trusted for being there: a request is bounded in size and time, decoded strictly
// (an unknown field, a second value or another version of the protocol is refused),
// and every value is checked by [Request.Validate] before a Handler sees it. Only
// root may ask: the socket has mode 0600, and the kernel tells the peer's user.
//
// During an update the two ends may be of different releases. A field that is new must
// therefore be one that can be left out: the agent does without it, and the Client
// leaves it out when an agent refuses it.
//
// # Who waits for whom
//
// An add is answered when the kernel holds the pod's policies. The Handler's context
// ends as soon as the plugin hangs up, because its own time is over or because it
// was killed, so that nobody waits for a pod that will not come.
//
// An agent that is away does not have to fail pods: an address that the agent has
// not released is in quarantine. So the Client tells apart an agent that answered
// with an error and one that did not answer ([ErrUnreachable]); what becomes of the
// pod then is [Settings.OnAgentUnreachable].
//
// The package is part of a small program that runs for every pod: it imports the
// standard library, golang.org/x/sys and package socket only.
package cni
