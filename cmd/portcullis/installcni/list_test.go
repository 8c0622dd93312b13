package installcni

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// TestFormats puts the plugin into lists of every look.
func TestFormats(t *testing.T) {
	compact := func(plugins string) string {
		return `{"cniVersion":"1.1.0","name":"n","plugins":[` + plugins + `]}`
	}
	for name, c := range map[string]struct{ before, after string }{
		"compact":       {compact(`{"type":"a"}`), compact(`{"type":"a"},` + ours)},
		"lines":         {compact("\n{\"type\":\"a\"} ,\n{\"type\":\"b\"}\n"), compact("\n{\"type\":\"a\"} ,\n{\"type\":\"b\"},\n" + ours + "\n")},
		"tabs":          {compact("\n\t{\n\t\t\"type\":\"a\"\n\t}\n"), compact("\n\t{\n\t\t\"type\":\"a\"\n\t},\n\t" + indent(t, "\t", "\t") + "\n")},
		"outdented":     {compact("\n    {\n \"type\":\"a\"}"), compact("\n    {\n \"type\":\"a\"},\n    " + indent(t, "    ", "  "))},
		"name after":    {`{"plugins":[{"type":"a"}],"name":"n","cniVersion":"0.4.0"}`, `{"plugins":[{"type":"a"},` + ours + `],"name":"n","cniVersion":"0.4.0"}`},
		"other's type":  {compact(`{"type":"a","x":{"type":"portcullis-cni","plugins":[]}}`), compact(`{"type":"a","x":{"type":"portcullis-cni","plugins":[]}},` + ours)},
		"in the middle": {compact(`{"type":"a"},` + ours + `,{"type":"b"}`), compact(`{"type":"a"},` + ours + `,{"type":"b"}`)},
		"same, spaced":  {compact(`{"type":"a"}, ` + strings.ReplaceAll(ours, ",", " , ")), compact(`{"type":"a"}, ` + strings.ReplaceAll(ours, ",", " , "))},
		"old settings":  {compact(`{"type":"a"},{"type":"portcullis-cni","socket":"/old"},{"type":"b"}`), compact(`{"type":"a"},` + ours + `,{"type":"b"}`)},
		"first":         {compact(ours + `,{"type":"a"}`), compact(`{"type":"a"},` + ours)},
		"field twice":   {`{"plugins":[{"type":"b"}],"cniVersion":"1.0.0","name":"n","\u0070lugins":[{"type":"a"}]}`, `{"plugins":[{"type":"b"}],"cniVersion":"1.0.0","name":"n","\u0070lugins":[{"type":"a"},` + ours + `]}`},
		"versions":      {`{"name":"n","cniVersions":["0.2.0","1.0.0"],"plugins":[{"type":"a"}]}`, `{"name":"n","cniVersions":["0.2.0","1.0.0"],"plugins":[{"type":"a"},` + ours + `]}`},
		"thrice":        {compact(ours + `,{"type":"a"},` + ours + `,{"type":"b"},` + ours), compact(`{"type":"a"},{"type":"b"},` + ours)},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, map[string]string{"10-n.conflist": c.before})
			require.NoError(t, h.Install())
			h.holds(t, map[string]string{"10-n.conflist": c.after})
			_, err := libcni.NetworkConfFromBytes([]byte(c.after))
			require.NoError(t, err)
			require.NoError(t, h.Install())
			h.holds(t, map[string]string{"10-n.conflist": c.after})
			if !strings.Contains(c.before, ours[:20]) {
				require.NoError(t, h.Remove())
				h.holds(t, map[string]string{"10-n.conflist": c.before})
			}
		})
	}
}

// indent is our plugin over several lines.
func indent(t *testing.T, outer, inner string) string {
	t.Helper()
	lines := strings.Split(strings.Trim(ours, "{}"), ",")
	for i := range lines {
		lines[i] = outer + inner + strings.Replace(lines[i], ":", ": ", 1)
	}
	return "{\n" + strings.Join(lines, ",\n") + "\n" + outer + "}"
}

// FuzzList puts the plugin into any list that is valid, and takes it out: the text is
// the same, and in between libcni finds the plugins that were there, and ours.
func FuzzList(f *testing.F) {
	for _, text := range []string{flannel, flannelWithOurs, single, `{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"} , {"type":"b"}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseList(text)
		if err != nil || len(l.plugins) == 0 {
			return
		}
		with, err := l.with(cni.Settings{}.WithDefaults())
		if err != nil {
			return
		}
		changed, err := parseList(with)
		require.NoError(t, err)
		require.Positive(t, changed.ours())
		again, err := changed.with(cni.Settings{}.WithDefaults())
		require.NoError(t, err)
		require.Equal(t, string(with), string(again))
		if l.ours() < 0 {
			require.Len(t, changed.plugins, len(l.plugins)+1)
			without, err := changed.without(changed.ours())
			require.NoError(t, err)
			require.Equal(t, string(text), string(without))
		}
	})
}
