package lean

import (
	"encoding/binary"
	"errors"
)

// shape says which fields of a protobuf message are kept, by their numbers.
type shape map[uint64]shape

// whole keeps a field as it is.
var whole = shape{}

// The numbers are those of the .proto files of k8s.io/apimachinery and k8s.io/api,
// which never change.
var (
	objectMeta = shape{
		1: whole, // name
		3: whole, // namespace
		5: whole, // uid
		6: whole, // resourceVersion
		8: whole, // creationTimestamp
		// labels and annotations; bookmarks are told by the latter
		11: whole, 12: whole,
	}
	containers = shape{
		6:  whole, // ports
		24: whole, // restartPolicy
	}
	podSpec = shape{
		2:  containers,
		10: whole, // nodeName
		11: whole, // hostNetwork
		20: containers,
	}
	podStatus = shape{
		1:  whole, // phase
		6:  whole, // podIP
		12: whole, // podIPs
	}
	pod     = shape{1: objectMeta, 2: podSpec, 3: podStatus}
	podList = shape{1: whole, 2: pod}
)

// envelope is what is around an object of the shape s: typeMeta, raw, contentEncoding
// and contentType of runtime.Unknown.
func envelope(s shape) shape { return shape{1: whole, 2: s, 3: whole, 4: whole} }

var errMalformed = errors.New("malformed protobuf message")

// Types of fields on the wire. Groups, 3 and 4, are in no message of ours.
const (
	varint    = 0
	fixed64   = 1
	delimited = 2
	fixed32   = 5
)

// field is one field of a message.
type field struct {
	number uint64
	kind   uint64
	all    []byte // with its tag
	body   int    // where in all the content begins
	length int    // where in all the length begins, if it is delimited
}

// next returns the first field of a message and the rest of it.
func next(message []byte) (f field, rest []byte, err error) {
	tag, n := binary.Uvarint(message)
	if n <= 0 {
		return f, nil, errMalformed
	}
	f.number, f.kind, f.length, f.body = tag>>3, tag&7, n, n
	size := uint64(0)
	switch f.kind {
	case varint:
		_, m := binary.Uvarint(message[n:])
		if m <= 0 {
			return f, nil, errMalformed
		}
		size = uint64(m)
	case fixed64:
		size = 8
	case fixed32:
		size = 4
	case delimited:
		m := 0
		if size, m = binary.Uvarint(message[n:]); m <= 0 {
			return f, nil, errMalformed
		}
		f.body += m
	default:
		return f, nil, errMalformed
	}
	if size > uint64(len(message)-f.body) {
		return f, nil, errMalformed
	}
	end := f.body + int(size)
	f.all = message[:end]
	return f, message[end:], nil
}

// cut appends to dst what s keeps of a message, in its order. dst and message must not
// overlap.
func (s shape) cut(dst, message []byte) ([]byte, error) {
	for len(message) > 0 {
		f, rest, err := next(message)
		if err != nil {
			return nil, err
		}
		message = rest
		inner, kept := s[f.number]
		switch {
		case !kept:
		case len(inner) == 0 || f.kind != delimited:
			dst = append(dst, f.all...)
		default:
			length := len(dst) + f.length
			dst = append(dst, f.all[:f.body]...)
			body := len(dst)
			if dst, err = inner.cut(dst, f.all[f.body:]); err != nil {
				return nil, err
			}
			putLength(dst[length:body], len(dst)-body)
		}
	}
	return dst, nil
}

// putLength overwrites the length of a field by one that is not larger. It takes all
// of b, as a number on the wire may have zeros in front.
func putLength(b []byte, n int) {
	for i := range b {
		b[i] = byte(n)&0x7f | 0x80
		n >>= 7
	}
	b[len(b)-1] &= 0x7f
}
