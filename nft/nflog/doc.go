// Package nflog receives the packets that rules log to an nflog group of a network
// namespace: for each the rule's prefix, and what the first bytes of the packet show.
//
// A group has one listener at most. What is received is what pods have sent, so nothing
// in it is trusted: a packet that is cut off or makes no sense has the fields that it
// shows, and the others are zero. What a listener is too slow for is lost and counted;
// the kernel keeps no more than the buffers of this package hold.
package nflog
