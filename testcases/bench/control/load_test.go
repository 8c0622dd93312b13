package control

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestLoad: an agent is sent the pods that can have addresses of their own, while they
// can, and nothing else.
func TestLoad(t *testing.T) {
	lab.Require(t, lab.NFTables)
	r, err := measureLoad(t.Context(), loadPlan{Size: Size{100, 20, 6, 0}, Lives: 3})
	require.NoError(t, err)
	require.Equal(t, int64(100+6+len(inhabitants)), r.Listed[pods].Objects)
	require.Equal(t, int64(1), r.Listed[nodeObject].Objects)
	require.Equal(t, 13, r.Withheld)
	require.Greater(t, r.Received, r.Listed[pods].Bytes)
	require.Greater(t, r.JSON, r.Protobuf)
	sent := map[string][2]int64{}
	for _, l := range r.Lives {
		sent[l.Name] = [2]int64{l.All.Objects, l.Sent.Objects}
	}
	require.Equal(t, map[string][2]int64{
		"pod of a Deployment":       {7, 6}, // all but that it was created
		"pod of a Job":              {8, 4}, // nor what comes after it has ended, which is the last
		"pod in its node's network": {7, 0},
	}, sent)
}
