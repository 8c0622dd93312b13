package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	for _, set := range []string{"ci", "all", setConformance} {
		list, err := suites(set, "../..", 4)
		require.NoError(t, err)
		require.NotEmpty(t, list)
	}
	_, err := suites("some", "../..", 4)
	require.ErrorContains(t, err, `unknown set "some"`)
	list, err := chosen(options{set: setConformance, run: "conformance=Netpol", limit: 10 * time.Minute}, "../..")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "Netpol", list[0].tests)
	require.Equal(t, 8*time.Minute, list[0].limit)
	_, err = chosen(options{set: "ci", run: "agent=x"}, "../..")
	require.ErrorContains(t, err, `no suite "agent"`)
}

func TestDefaultsOfSets(t *testing.T) {
	for set, want := range map[string]options{
		"ci":           {memory: "2G", cpus: 2, limit: 10 * time.Minute},
		"all":          {memory: "2G", cpus: 2, limit: 40 * time.Minute},
		setConformance: {memory: "6G", cpus: 4, limit: 20 * time.Minute},
	} {
		want.set = set
		got := options{set: set}
		got.complete()
		require.Equal(t, want, got)
	}
	given := options{set: setConformance, memory: "3G", cpus: 1, limit: time.Minute}
	got := given
	got.complete()
	require.Equal(t, given, got)
}
