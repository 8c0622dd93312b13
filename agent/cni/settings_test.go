package cni

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSettings have defaults, and each mistake is named by its field.
func TestSettings(t *testing.T) {
	good := Settings{}.WithDefaults()
	require.NoError(t, good.Validate())
	require.Equal(t, Settings{Type: PluginType, Socket: DefaultSocket, Timeout: "3s", OnAgentUnreachable: Allow}, good)
	require.Equal(t, DefaultTimeout, good.Wait())
	for _, timeout := range []string{"3", "soon", "0s", "-1s", "61s"} {
		bad := Settings{Type: "bridge", Socket: "cni.sock", Timeout: timeout, OnAgentUnreachable: "ignore"}.Validate()
		for _, field := range []string{`type: "bridge"`, `socket: "cni.sock"`, "timeout: ", `onAgentUnreachable: "ignore"`} {
			require.ErrorContains(t, bad, field)
		}
	}
}
