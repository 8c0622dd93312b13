package installcni

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// flannel is a list as such a plugin writes it, with fields that nobody here knows
// in an order that nothing sorts by.
const flannel = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "zzz": {"b": 1.50, "a": [ 12345678901234567890 ]},
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ],
  "aaa": null
}
`

const flannelWithOurs = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "zzz": {"b": 1.50, "a": [ 12345678901234567890 ]},
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    },
    {
      "type": "portcullis-cni",
      "socket": "/run/portcullis/cni.sock",
      "timeout": "3s",
      "onAgentUnreachable": "allow"
    }
  ],
  "aaa": null
}
`

const ours = `{"type":"portcullis-cni","socket":"/run/portcullis/cni.sock","timeout":"3s","onAgentUnreachable":"allow"}`

// host is a node's directories.
type host struct {
	Config
	log *strings.Builder
}

// newHost makes a node with these configurations.
func newHost(t *testing.T, files map[string]string) host {
	t.Helper()
	dir := t.TempDir()
	h := host{log: &strings.Builder{}}
	h.Config = Config{
		ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"), Source: filepath.Join(dir, "image"),
		Settings: cni.Settings{}.WithDefaults(),
		Logger:   slog.New(slog.NewTextHandler(h.log, nil)),
	}
	for _, d := range []string{h.ConfDir, h.BinDir, h.Source} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(h.Source, cni.PluginType), []byte("binary"), 0o700))
	for name, text := range files {
		h.put(t, name, text)
	}
	return h
}

func (h host) put(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(h.ConfDir, name), []byte(text), 0o600))
}

// holds wants exactly these configurations.
func (h host) holds(t *testing.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(h.ConfDir)
	require.NoError(t, err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(h.ConfDir, e.Name()))
		require.NoError(t, err)
		got[e.Name()] = string(text)
	}
	require.Equal(t, want, got)
}

// stamps are the numbers of the files, which change when a file is replaced.
func (h host) stamps(t *testing.T) map[string]fs.FileInfo {
	t.Helper()
	stamps := map[string]fs.FileInfo{}
	for _, dir := range []string{h.ConfDir, h.BinDir} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			info, err := e.Info()
			require.NoError(t, err)
			stamps[e.Name()] = info
		}
	}
	return stamps
}

// TestInstallAndRemove puts the plugin in and takes it out, and leaves no trace. Each
// done twice is as good as once.
func TestInstallAndRemove(t *testing.T) {
	h := newHost(t, map[string]string{"10-flannel.conflist": flannel, "20-later.conflist": `{"name":"x","plugins":[{"type":"y"}]}`})
	require.NoError(t, os.Chmod(filepath.Join(h.ConfDir, "10-flannel.conflist"), 0o640))
	require.NoError(t, h.Install())
	want := map[string]string{"10-flannel.conflist": flannelWithOurs, "20-later.conflist": `{"name":"x","plugins":[{"type":"y"}]}`}
	h.holds(t, want)
	stamps := h.stamps(t)
	require.Equal(t, fs.FileMode(0o640), stamps["10-flannel.conflist"].Mode())
	require.Equal(t, fs.FileMode(0o755), stamps[cni.PluginType].Mode())

	require.NoError(t, h.Install())
	h.holds(t, want)
	for name, info := range h.stamps(t) {
		require.True(t, os.SameFile(stamps[name], info), "%s was written again", name)
	}

	for range 2 {
		require.NoError(t, h.Remove())
		want["10-flannel.conflist"] = flannel
		h.holds(t, want)
		require.NoFileExists(t, h.binary())
	}
	info, err := os.Stat(filepath.Join(h.ConfDir, "10-flannel.conflist"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode())
}

const single = "{\n  \"cniVersion\": \"0.3.1\", \"name\": \"solo\",\n  \"type\": \"bridge\", \"mtu\": 1450.0\n}\n"

// TestSinglePlugin puts a list before a file that has room for one plugin only. A
// container runtime then takes the list.
func TestSinglePlugin(t *testing.T) {
	for _, ending := range []string{".conf", ".json"} {
		t.Run(ending, func(t *testing.T) {
			h := newHost(t, map[string]string{"10-net" + ending: single})
			require.NoError(t, h.Install())
			want := map[string]string{
				"10-net" + ending: single,
				"10-net-portcullis.conflist": "{\"cniVersion\":\"0.3.1\",\"name\":\"solo\",\n\"plugins\": [\n" +
					strings.TrimSpace(single) + ",\n" + ours + "\n]}\n",
			}
			h.holds(t, want)
			files, err := h.files()
			require.NoError(t, err)
			require.Equal(t, "10-net-portcullis.conflist", filepath.Base(files[0]))
			list, err := libcni.NetworkConfFromFile(files[0])
			require.NoError(t, err)
			require.Len(t, list.Plugins, 2)
			stamps := h.stamps(t)
			require.NoError(t, h.Install())
			require.True(t, os.SameFile(stamps["10-net-portcullis.conflist"], h.stamps(t)["10-net-portcullis.conflist"]))

			// The list follows the file, and goes with it.
			other := strings.Replace(single, "1450", "9000", 1)
			h.put(t, "10-net"+ending, other)
			require.NoError(t, h.Install())
			want["10-net"+ending] = other
			want["10-net-portcullis.conflist"] = strings.Replace(want["10-net-portcullis.conflist"], "1450", "9000", 1)
			h.holds(t, want)
			require.NoError(t, os.Remove(filepath.Join(h.ConfDir, "10-net"+ending)))
			require.ErrorIs(t, h.Install(), ErrNoConfig)
			h.holds(t, map[string]string{})
		})
	}
}

// TestSinglePluginReplaced drops the list when another configuration becomes active,
// and when the plugin is removed.
func TestSinglePluginReplaced(t *testing.T) {
	h := newHost(t, map[string]string{"10-net.conf": single})
	require.NoError(t, h.Install())
	h.put(t, "05-flannel.conflist", flannel)
	require.NoError(t, h.Install())
	h.holds(t, map[string]string{"10-net.conf": single, "05-flannel.conflist": flannelWithOurs})
	require.NoError(t, os.Remove(filepath.Join(h.ConfDir, "05-flannel.conflist")))
	require.NoError(t, h.Install())
	require.NoError(t, h.Remove())
	h.holds(t, map[string]string{"10-net.conf": single})
}

// TestActive is the first valid configuration by name; what is not valid is named.
func TestActive(t *testing.T) {
	broken := map[string]string{
		"01.conflist": "", "02.conflist": "[]", "03.conflist": `{"name":"n","plugins":[]}`, "04.conflist": `{"name":"n","plugins":[{"x":1}]}`,
		"05.conflist": `{"plugins":[{"type":"a"}]}`, "06.conflist": `{"name":"n"}`, "07.conflist": `{"name":"n","plugins":{}}`,
		"08.conf": `{"name":"n"}`, "09.json": "{", "091.conflist": flannel[:len(flannel)-3], "092.txt": flannel,
	}
	h := newHost(t, broken)
	err := h.Install()
	require.ErrorIs(t, err, ErrNoConfig)
	for _, text := range []string{"01.conflist: ", "02.conflist: ", "03.conflist: error parsing configuration list: no plugins",
		"04.conflist: failed to parse plugin config 0: error parsing configuration: missing 'type'", "05.conflist: error parsing configuration list: no name",
		"06.conflist: plugins: missing", "07.conflist: error parsing configuration list: invalid 'plugins' type", "08.conf: error parsing configuration: missing 'type'",
		"09.json: ", "091.conflist: "} {
		require.ErrorContains(t, err, text)
	}
	require.FileExists(t, h.binary())
	h.holds(t, broken)
	h.put(t, "093.conflist", flannel)
	h.put(t, "094.conflist", flannel)
	require.NoError(t, os.Mkdir(filepath.Join(h.ConfDir, "00.conflist"), 0o755))
	require.NoError(t, h.Install())
	require.NoError(t, os.Remove(filepath.Join(h.ConfDir, "00.conflist")))
	require.Contains(t, h.log.String(), "04.conflist: failed to parse plugin config 0")
	broken["093.conflist"], broken["094.conflist"] = flannelWithOurs, flannel
	h.holds(t, broken)
}

// TestRefused are active configurations into which the plugin cannot go; they stay.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, text, says string }{
		"no version":    {"10.conflist", `{"name":"n","plugins":[{"type":"a"}]}`, "10.conflist: cniVersion: missing"},
		"old version":   {"10.conflist", `{"name":"n","cniVersion":"0.2.0","plugins":[{"type":"a"}]}`, "10.conflist: cniVersion: 0.2.0"},
		"odd version":   {"10.conflist", `{"name":"n","cniVersion":"new","plugins":[{"type":"a"}]}`, "10.conflist: cniVersion: "},
		"only ours":     {"10.conflist", `{"name":"n","cniVersion":"1.0.0","plugins":[` + ours + `]}`, "10.conflist: plugins: portcullis-cni is the only one"},
		"single, old":   {"10.conf", `{"name":"n","type":"a"}`, "10.conf: cniVersion: missing"},
		"single, alone": {"10.conf", `{"cniVersion":"1.0.0","type":"a"}`, "10.conf: name: missing"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, map[string]string{c.file: c.text, "20.conflist": flannel})
			require.ErrorContains(t, h.Install(), c.says)
			h.holds(t, map[string]string{c.file: c.text, "20.conflist": flannel})
		})
	}
}

// TestPluginsOfDirectory refuses a list that a container runtime completes from files.
func TestPluginsOfDirectory(t *testing.T) {
	for name, text := range map[string]string{
		"some": `{"name":"n*","cniVersion":"1.1.0","plugins":[{"type":"a"}]}`,
		"all":  `{"name":"n*","cniVersion":"1.1.0"}`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, map[string]string{"10.conflist": text})
			dir := filepath.Join(h.ConfDir, "n*")
			require.NoError(t, os.Mkdir(dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "1.conf"), []byte(`{"type":"b"}`), 0o600))
			require.ErrorContains(t, h.Install(), "10.conflist: plugins: further plugins come from "+dir)
		})
	}
	text := `{"name":"n","cniVersion":"1.1.0","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}`
	h := newHost(t, map[string]string{"10.conflist": text})
	require.NoError(t, os.Mkdir(filepath.Join(h.ConfDir, "n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(h.ConfDir, "n", "1.conf"), []byte(`{"type":"b"}`), 0o600))
	require.NoError(t, h.Install())
}

// TestBinaryIsReplaced by another release, or if it is not as it was put there.
func TestBinaryIsReplaced(t *testing.T) {
	h := newHost(t, map[string]string{"10-flannel.conflist": flannel})
	require.NoError(t, h.Install())
	require.NoError(t, os.WriteFile(filepath.Join(h.Source, cni.PluginType), []byte("newer"), 0o700))
	require.NoError(t, h.Install())
	text, err := os.ReadFile(h.binary())
	require.NoError(t, err)
	require.Equal(t, "newer", string(text))
	require.NoError(t, os.Chmod(h.binary(), 0o644))
	require.NoError(t, h.Install())
	require.Equal(t, fs.FileMode(0o755), h.stamps(t)[cni.PluginType].Mode())

	require.NoError(t, os.Remove(filepath.Join(h.Source, cni.PluginType)))
	require.ErrorContains(t, h.Install(), "copy the plugin: open "+h.Source)
}

// TestSymbolicLink keeps the link and writes where it leads.
func TestSymbolicLink(t *testing.T) {
	h := newHost(t, nil)
	real := filepath.Join(t.TempDir(), "real")
	require.NoError(t, os.WriteFile(real, []byte(flannel), 0o600))
	link := filepath.Join(h.ConfDir, "10.conflist")
	require.NoError(t, os.Symlink(real, link))
	require.NoError(t, h.Install())
	h.holds(t, map[string]string{"10.conflist": flannelWithOurs})
	to, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, real, to)
}

// TestRewriteSeesOthers does not overwrite what somebody wrote meanwhile.
func TestRewriteSeesOthers(t *testing.T) {
	h := newHost(t, map[string]string{"10.conflist": "new"})
	require.ErrorIs(t, rewrite(filepath.Join(h.ConfDir, "10.conflist"), []byte("old"), []byte("ours")), errChanged)
	h.holds(t, map[string]string{"10.conflist": "new"})
}

// TestRemoveEverywhere takes the plugin out of what is not active, too, and keeps the
// binary while a configuration names it.
func TestRemoveEverywhere(t *testing.T) {
	h := newHost(t, map[string]string{"10.conflist": flannelWithOurs, "20.conflist": flannelWithOurs, "30.conflist": flannelWithOurs[:100] + cni.PluginType})
	require.NoError(t, h.copyBinary())
	err := h.Remove()
	require.ErrorContains(t, err, "30.conflist: error parsing configuration list")
	require.ErrorContains(t, err, h.binary()+" stays")
	require.FileExists(t, h.binary())
	require.NoError(t, os.Remove(filepath.Join(h.ConfDir, "30.conflist")))
	h.KeepBinary = true
	require.NoError(t, h.Remove())
	require.FileExists(t, h.binary())
	h.holds(t, map[string]string{"10.conflist": flannel, "20.conflist": flannel})
	h.KeepBinary = false
	require.NoError(t, h.Remove())
	require.NoFileExists(t, h.binary())
}

// TestNoDirectory is named.
func TestNoDirectory(t *testing.T) {
	h := newHost(t, nil)
	require.NoError(t, os.Remove(h.ConfDir))
	require.ErrorContains(t, h.Install(), h.ConfDir)
	require.ErrorContains(t, h.Remove(), h.ConfDir)
	h.Settings.Socket = "cni.sock"
	require.ErrorContains(t, h.Install(), "socket: ")
}
