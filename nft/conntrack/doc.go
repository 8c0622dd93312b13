// Package conntrack reads and deletes entries of the kernel's connection tracking
// table, in one network namespace.
//
// A packet of a connection that was allowed once is never judged again: the
// table of package nft lets it pass as established. After a change of policies,
// whoever wants connections cut that are no longer allowed looks for the flows of
// the pods concerned, judges each by its two ends as policies see them, and
// deletes the entries of the others. What is judged is no matter of this package.
//
//	             original                        reply
//	Client:port ──► called    (DNAT)    Server:port ──► answered    (SNAT)
//
// An entry has two tuples: what the client sends, before any NAT, and what the
// server sends, before it is undone. The policies' view is that of the forward
// hook, the source of the first (Flow.Client) and the source of the second
// (Flow.Server, Flow.ServerPort), whatever Service or node port stands between.
//
// # What deleting does, and what it does not
//
// The next packet of a deleted flow is new, and is judged: that of the client as
// such. But one of the server's makes an entry in the other direction, in which
// it may well be allowed. So a TCP packet that is new and opens nothing has to
// be refused, and the reply tuple of other flows (Flow.Reply) denied for a while:
// Config.Midstream and Enforcer.Forbid of package nft. The TCP client of a Service
// (Flow.Translated) is told only if what it sends (Flow.Original) is refused before
// it is translated.
//
// A flow can begin between a change of policies and the end of a dump, or escape
// a dump while the kernel makes its table larger. Looking again a moment later
// finds it.
//
// # What it costs
//
// The kernel has no index by address: it walks the whole table for every dump,
// all namespaces included. What it can be spared is to write, and us to read, the
// entries that are not asked for. With 100,000 entries, 50,000 of either family,
// in a table of 262,144 buckets (2 vCPU, kernel 6.18) finding the ten flows of
// an address takes 33 ms filtered and 78 ms whole; with 10,000 entries and less, 8
// ms either way, which is the walk. Deleting takes 5 µs an entry. For more than
// two addresses one whole dump is cheaper, and FlowsOf makes that choice. Memory
// is one buffer of 64 KiB a socket, however large the table.
//
// Whether the kernel's filter can be believed is found out first: see filter.go.
package conntrack
