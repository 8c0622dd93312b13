// Package soak shows with real packets that nothing opens and nothing breaks while
// pods start, agents are killed, other programs touch the rules, and policies change.
//
// Its tests run the agent itself: in the test's process with an API server's fake, or
// as a process of its own that can be killed. Packets go through the namespaces of
// package lab. Without flags each test takes a few seconds; `make soak` runs the full
// figures. Every test ends with a line that says what it counted; with -soak.table
// all of them are printed once more in the end, as a table.
//
// # How a packet is judged
//
// Most tests use two ports: one that every state involved allows and one that none
// does, so that each packet has one right verdict, whatever the rules are at that
// moment. TestChurnAgainstEvaluate judges packets between random states. It keeps the
// cluster's history: a state may be in force from the moment it is made (before the
// API server is told of it) until the kernels of both nodes were read and found to
// hold a later one. A packet is judged right if, for its sender and for its receiver
// each, such a state says so, out of those between its sending and its arrival, or else
// one with the pods of one of them, the policies of another and the namespaces of a
// third: an agent learns of each kind of object by itself. A packet that does not
// arrive is taken to have met its end within a tenth of a second.
//
// testdata/layout-N.nft is a table as a released layout had it, made of
// testdata/restarts.yaml with `portcullis render`. A new layout adds a file.
package soak
