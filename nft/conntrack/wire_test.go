package conntrack

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// reply makes a message of the kernel's.
func reply(kind, flags uint16, seq uint32, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(netlinkHeader+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func errno(e unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))) }

func TestAnswer(t *testing.T) {
	const entry = unix.NFNL_SUBSYS_CTNETLINK << 8
	var told []byte
	take := func(a *answer, datagrams ...[]byte) error {
		told = nil
		a.handle = func(b []byte) { told = append(told, b...) }
		for _, d := range datagrams {
			if err := a.take(d); err != nil {
				return err
			}
		}
		return nil
	}
	done := reply(unix.NLMSG_DONE, unix.NLM_F_MULTI, 7, errno(0)...)

	a := answer{seq: 7}
	require.NoError(t, take(&a, append(reply(entry, 2, 7, 1), reply(entry, 2, 7, 2)...), reply(entry, 2, 7, 3)))
	require.False(t, a.done)
	require.Equal(t, []byte{1, 2, 3}, told)
	require.NoError(t, take(&a, done))
	require.True(t, a.done)
	require.NoError(t, a.err)

	a = answer{seq: 7}
	require.NoError(t, take(&a, reply(entry, 2, 6, 1), reply(unix.NLMSG_DONE, 2, 6, errno(0)...), reply(unix.NLMSG_ERROR, 0, 8, errno(unix.EPERM)...)))
	require.False(t, a.done, "answers to something else")
	require.Empty(t, told)

	a = answer{seq: 7}
	require.NoError(t, take(&a, reply(unix.NLMSG_ERROR, 0, 7, errno(unix.ENOENT)...)))
	require.ErrorIs(t, a.err, unix.ENOENT)
	a = answer{seq: 7}
	require.NoError(t, take(&a, reply(unix.NLMSG_DONE, 2, 7, errno(unix.ENOMEM)...)))
	require.ErrorIs(t, a.err, unix.ENOMEM, "a dump that fails under way")

	a = answer{seq: 7}
	require.NoError(t, take(&a, reply(entry, 2|unix.NLM_F_DUMP_INTR, 7, 1), reply(entry, 2, 7, 2), done))
	require.True(t, a.done)
	require.ErrorIs(t, a.err, errIncomplete)
	require.Equal(t, []byte{1, 2}, told)
	a = answer{seq: 7}
	require.ErrorIs(t, take(&a, reply(unix.NLMSG_OVERRUN, 0, 7)), errIncomplete)

	for _, malformed := range [][]byte{done[:12], done[:18], reply(unix.NLMSG_DONE, 2, 7), {255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		a = answer{seq: 7}
		require.ErrorIs(t, take(&a, malformed), errMalformed)
	}
}

// FuzzMessages feeds what no kernel sends.
func FuzzMessages(f *testing.F) {
	var w writer
	for _, flow := range mixed() {
		w.begin(0, 0, 7, familyOf(flow.Client))
		w.original(flow)
		b := w.end()
		f.Add(append([]byte(nil), b...))
	}
	f.Add(reply(unix.NLMSG_DONE, 2, 7, errno(0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := answer{seq: 7, handle: func(body []byte) {
			if f, ok := parseFlow(body); ok {
				require.True(t, f.Client.IsValid() && f.Server.IsValid() && f.called.IsValid() && f.answered.IsValid())
			}
		}}
		_ = a.take(b)
		for range attributes(b) {
		}
		if f, ok := parseFlow(b); ok {
			require.True(t, f.called.Addr().IsValid())
		}
	})
}
