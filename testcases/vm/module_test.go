package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModuleOrder(t *testing.T) {
	tree := map[string][]string{
		"sctp": {"crc", "tunnel"}, "tunnel": {"crc", "ipv6"}, "crc": nil,
		"nft": {"netlink"}, "netlink": nil, "loop": {"pool"}, "pool": {"loop"}, "hollow": {"absent"},
	}
	depends := func(name string) ([]string, bool, error) {
		if name == "broken" {
			return nil, true, errors.New("no section .modinfo")
		}
		needs, ok := tree[name]
		return needs, ok, nil
	}
	builtIn := map[string]bool{"ipv6": true}
	for _, c := range []struct {
		required, optional, want []string
		err                      string
	}{
		{required: []string{"sctp", "nft"}, want: []string{"crc", "tunnel", "sctp", "netlink", "nft"}},
		{required: []string{"sctp"}, optional: []string{"nft", "absent"}, want: []string{"netlink", "nft", "crc", "tunnel", "sctp"}},
		{required: []string{"ipv6", "crc", "crc"}, want: []string{"crc"}},
		{required: []string{"absent"}, err: "the kernel has no module absent"},
		{optional: []string{"hollow", "absent"}, err: "the kernel has no module hollow, which needs absent"},
		{required: []string{"loop"}, err: "depend on each other: loop, pool, loop"},
		{required: []string{"broken"}, err: "module broken: no section"},
	} {
		got, err := moduleOrder(c.required, c.optional, builtIn, depends)
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestModuleFiles(t *testing.T) {
	for file, want := range map[string]string{
		"/lib/modules/1/kernel/net/sctp/sctp.ko":                "sctp",
		"/lib/modules/1/kernel/arch/x86/crypto/crc32c-intel.ko": "crc32c_intel",
		"kernel/net/bridge/bridge.ko.xz":                        "bridge",
		"/lib/modules/1/modules.order":                          "",
	} {
		require.Equal(t, want, moduleName(file))
	}
	require.Equal(t, []string{"libcrc32c", "udp_tunnel"}, parseDepends([]byte("license=GPL\x00depends=libcrc32c,udp-tunnel\x00name=sctp\x00")))
	require.Empty(t, parseDepends([]byte("depends=\x00name=x\x00")))
	_, err := unpacked("x.ko.lz9", nil)
	require.ErrorContains(t, err, "unknown compression")
	_, err = dependencies([]byte("no ELF"))
	require.Error(t, err)
}
