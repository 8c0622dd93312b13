package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Everything but a complete list of good news is a failure.
func TestVerdict(t *testing.T) {
	const good = `{"Kernel":"6.1.0-56-amd64"}
{"Run":"nft","Seconds":1}
{"Run":"testcases","Seconds":60.4}
{"Done":true}
`
	list := []suite{{name: "nft"}, {name: "testcases"}}
	summary, err := verdict(strings.NewReader(good), "6.1.0-56-amd64", list)
	require.NoError(t, err)
	require.Contains(t, summary, "testcases    exit code 0 after 60 s")

	lines := slices.Collect(strings.Lines(good))
	for i := range lines {
		fewer := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		_, err := verdict(strings.NewReader(fewer), "6.1.0-56-amd64", list)
		require.Error(t, err, "without %s", lines[i])
	}
	for _, bad := range []string{
		strings.Replace(good, `"nft"`, `"nft","Exit":1`, 1),
		good + `{"Error":"load sctp: no such file"}`,
		strings.Replace(good, "6.1.0-56", "6.1.0-55", 1),
		good + "Kernel panic",
	} {
		_, err := verdict(strings.NewReader(bad), "6.1.0-56-amd64", list)
		require.Error(t, err, bad)
	}
}

func TestLibraries(t *testing.T) {
	const ldd = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibedit.so.2 => /lib/libedit.so.2 (0x7f1)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f2)\n"
	require.Equal(t, []string{"/lib/libedit.so.2", "/lib64/ld-linux-x86-64.so.2"}, libraries(ldd))
}
