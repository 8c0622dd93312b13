package testcases

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var readmeRow = regexp.MustCompile(`(?m)^\| (\d+) \| (P?) ?\|`)

// TestRowsAreCovered holds the list in README.md against the cases.
func TestRowsAreCovered(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	packets := map[int]bool{}
	var rows []int
	for _, m := range readmeRow.FindAllStringSubmatch(string(readme), -1) {
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		rows = append(rows, n)
		packets[n] = m[2] == "P"
	}
	require.Len(t, rows, 29, "rows of README.md")

	cases, err := readCases("cases")
	require.NoError(t, err)
	covered, withPackets := map[int]int{}, map[int]int{}
	for _, c := range cases {
		sends := slices.ContainsFunc(c.Steps, func(s step) bool {
			return slices.ContainsFunc(s.Flows, func(f flowLine) bool { return !f.NoPackets })
		})
		assert.True(t, sends, "case %s sends no packet", c.Name)
		for _, n := range c.Covers {
			assert.Contains(t, rows, n, "case %s: covers", c.Name)
			covered[n]++
			if sends {
				withPackets[n]++
			}
		}
	}
	for _, n := range rows {
		assert.NotZero(t, covered[n], "no case covers row %d", n)
		if packets[n] {
			assert.NotZero(t, withPackets[n], "no case covers row %d with packets", n)
		}
	}
}
