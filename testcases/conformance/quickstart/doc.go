// Package quickstart runs what a document tells its reader to type, and compares what
// comes of it with what the document shows.
//
// The commands are in the section "## Quick start", in blocks of this form:
//
//	```console
//	$ kubectl -n shop get pods
//	NAME       READY   STATUS    RESTARTS   AGE
//	database   1/1     Running   0          …
//	…
//	$ kubectl -n shop exec frontend -- /agnhost connect database:80 # exit status 1
//	TIMEOUT
//	```
//
// What follows "$ " is a command, and the lines below it are all that it prints, to standard
// output and standard error. "…" stands for anything within a line, a line that is only "…"
// for any number of lines, also none. A command has to end with exit status 0, or with the one
// that a comment at its end names. Each is run by a shell of its own, with an empty standard
// input.
//
// A policy is in force a moment after it was accepted. So a command that does not do yet what
// the document says is run again for a while, unless it is one that changes objects: kubectl
// apply, annotate, create, delete, label.
//
// Other blocks of code in the section are errors: nothing would test them.
package quickstart
