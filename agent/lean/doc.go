// Package lean makes clients of a cluster that decode of a pod only what policies can
// ask for. The API server sends whole pods, some 6 KB each, and has no way to be asked
// for less; but nine tenths of that need not become Go values first and garbage then.
// It is left out of the protobuf message, field by field, before the ordinary decoder
// sees it. What is left is a pod like any other, with many fields unset.
//
// Other kinds, other formats than protobuf, and messages that are not as they should be
// go to the ordinary decoder as they are.
package lean
