package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSelectCases(t *testing.T) {
	const dir = "../cases"
	names, err := selectCases(dir)
	require.NoError(t, err)
	require.Subset(t, names, favourites, "a favourite is gone")
	t.Logf("%d cases: %v", len(names), names)

	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	rows := func(name string) []string {
		text, err := os.ReadFile(filepath.Join(dir, name, "flows.txt"))
		require.NoError(t, err)
		if strings.Contains(string(text), "sctp/") {
			require.Contains(t, names, name, "SCTP")
		}
		return strings.Fields(string(coversLine.FindSubmatch(text)[1]))
	}
	covered := map[string]bool{}
	for _, name := range names {
		for _, row := range rows(name) {
			covered[row] = true
		}
	}
	for _, e := range all {
		for _, row := range rows(e.Name()) {
			require.True(t, covered[row], "row %s", row)
		}
	}
}

func TestSuites(t *testing.T) {
	for _, set := range []string{"ci", "all"} {
		list, err := suites(set, "../..", 4)
		require.NoError(t, err)
		require.NotEmpty(t, list)
	}
	_, err := suites("some", "../..", 4)
	require.ErrorContains(t, err, `unknown set "some"`)
	_, err = chosen(options{set: "ci", run: "agent=x"}, "../..")
	require.ErrorContains(t, err, `no suite "agent"`)
}
