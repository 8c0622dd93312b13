// Package socket makes the unix sockets at which the agent listens: at a path that may
// have a socket of an agent that was killed, for root only, and without a moment at
// which anybody else could connect.
//
// The CNI plugin, a small program that runs for every pod, contains it: it imports the
// standard library only.
package socket
