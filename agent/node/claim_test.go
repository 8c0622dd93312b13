package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestClaim(t *testing.T) {
	lab.Require(t)
	l, err := lab.New(lab.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()

	release, err := Claim(l.NetNS("node-1"))
	require.NoError(t, err)
	_, err = Claim(l.NetNS("node-1"))
	require.ErrorIs(t, err, ErrClaimed)
	other, err := Claim(l.NetNS("node-2"))
	require.NoError(t, err, "another namespace")
	require.NoError(t, other())

	require.NoError(t, release())
	again, err := Claim(l.NetNS("node-1"))
	require.NoError(t, err)
	require.NoError(t, release(), "a second release does nothing")
	_, err = Claim(l.NetNS("node-1"))
	require.ErrorIs(t, err, ErrClaimed)
	require.NoError(t, again())

	_, err = Claim(1 << 20)
	require.ErrorContains(t, err, "bad file descriptor")
}

// TestClaimEndsWithProcess kills the process that holds the claim.
func TestClaimEndsWithProcess(t *testing.T) {
	lab.Require(t)
	l, err := lab.New(lab.Config{Nodes: []string{nodeName}})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	cmd, out := child(t, "claim", l.NetNS(nodeName), nil)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "claimed: <nil>\n", line)

	_, err = Claim(l.NetNS(nodeName))
	require.ErrorIs(t, err, ErrClaimed)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	release, err := Claim(l.NetNS(nodeName))
	require.NoError(t, err)
	require.NoError(t, release())
}
