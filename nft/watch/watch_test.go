package watch

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// message returns a netlink message.
func message(kind uint16, body ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(cap(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

// TestDisturbed reads notifications. What the kernel says, and when, is tested where
// there are tables: in packages nft and spoof.
func TestDisturbed(t *testing.T) {
	w := New(unix.NFPROTO_INET, func(table string) bool { return strings.HasPrefix(table, "portcullis-") })
	w.ids = []uint32{7}
	about := func(kind, sender uint16, family byte, table string) []byte {
		body := []byte{family, 0, 0, 0, byte(5 + len(table)), 0, unix.NFTA_TABLE_NAME, 0}
		body = append(append(body, table...), 0)
		b := message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, append(body, make([]byte, (4-len(body)%4)%4)...)...)
		b[portIDOffset] = byte(sender)
		return b
	}
	const inet = unix.NFPROTO_INET
	ours := about(unix.NFT_MSG_NEWRULE, 8, inet, "portcullis-a")
	for name, tc := range map[string]struct {
		piece []byte
		want  bool
	}{
		"nothing":             {nil, false},
		"somebody else":       {ours, true},
		"we":                  {about(unix.NFT_MSG_NEWRULE, 7, inet, "portcullis-a"), false},
		"another table":       {about(unix.NFT_MSG_NEWRULE, 8, inet, "portcullis"), false},
		"another family":      {about(unix.NFT_MSG_NEWRULE, 8, unix.NFPROTO_IPV4, "portcullis-a"), false},
		"a new generation":    {about(unix.NFT_MSG_NEWGEN, 8, inet, "portcullis-a"), false},
		"behind others":       {append(about(unix.NFT_MSG_DELTABLE, 8, inet, "x"), ours...), true},
		"another subsystem":   {append([]byte{ours[0], ours[1], ours[2], ours[3], 0, 1}, ours[6:]...), false},
		"cut off":             {ours[:len(ours)-4], true},
		"of impossible size":  {make([]byte, unix.SizeofNlMsghdr), true},
		"without a netfilter": {message(unix.NFNL_SUBSYS_NFTABLES << 8), false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, w.disturbed(tc.piece)) })
	}
}
