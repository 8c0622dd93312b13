// Package admin is how people ask a running agent what it does: the answers, and the
// two ends of the unix socket that they pass.
//
//	agent ──Backend──► Handler ──► socket ──► Client ──► portcullis status, monitor, …
//	      ──Feed─────►
//
// It is HTTP, with GET only:
//
//	/debug/state             a State
//	/debug/audit             an Audit
//	/debug/denied            Denials that were not long ago, a line of JSON each, oldest
//	                         first; with ?follow=1, and then those that come
//	/debug/objects           a v1 List of the cluster's objects as the agent has them
//
// Whoever follows and does not keep up loses Denials and is told how many, by a line
// {"lost": n} in the place where they would be. The agent never waits for anybody.
//
// Only root may ask: the socket has mode 0600, and the kernel tells the peer's user. What
// names and labels say is anybody's; here it is JSON, and what becomes of it elsewhere
// has to be escaped there.
//
// The commands link this package, and so may others: it imports the standard library
// only (and package socket, which does so too).
package admin
