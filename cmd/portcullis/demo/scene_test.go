package demo

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

var update = flag.Bool("update", false, "write the golden files anew")

// paper is a network without packets.
type paper struct{ families []int }

func (p paper) NodeAddrs(node string) []netip.Addr {
	n := strings.TrimPrefix(node, "node-")
	return (&scene{families: p.families}).ofFamilies([]netip.Addr{
		netip.MustParseAddr("192.168.77.1" + n), netip.MustParseAddr("fd00:77::1" + n),
	})
}

func (p paper) PodCIDRs(node string) []netip.Prefix {
	n := strings.TrimPrefix(node, "node-")
	var out []netip.Prefix
	for _, s := range []string{"10.244." + n + ".0/24", "fd00:10:244:" + n + "::/64"} {
		if c := netip.MustParsePrefix(s); (&scene{families: p.families}).hasFamily(c.Addr()) {
			out = append(out, c)
		}
	}
	return out
}

// tell goes through a scene without packets: what is observed is what is expected.
func tell(t *testing.T, s *scene) []*report {
	t.Helper()
	var out []*report
	var before *report
	require.NoError(t, s.place(paper{s.families}))
	for i, st := range s.steps {
		require.NoError(t, s.apply(st))
		require.NoError(t, s.place(paper{s.families}))
		r := &report{number: i + 1, title: st.title, text: st.text, added: sortedKeys(st.add), dropped: st.drop}
		r.flows = s.flows()
		var err error
		r.want, err = s.expect(r.flows)
		require.NoError(t, err)
		r.compare(before)
		for _, w := range r.want {
			r.got = append(r.got, lab.Result{OK: w.allowed})
		}
		out = append(out, r)
		before = r
	}
	return out
}

func story(t *testing.T, families ...int) (*scene, []*report) {
	t.Helper()
	s, err := newStory(families)
	require.NoError(t, err)
	return s, tell(t, s)
}

func TestStoryTables(t *testing.T) {
	s, reports := story(t, 4, 6)
	var b strings.Builder
	for _, r := range reports {
		fmt.Fprintf(&b, "%d. %s\n\n%s\n", r.number, r.title, newTable(s, r))
	}
	golden := filepath.Join("testdata", "story.txt")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// allowedIn tells what Evaluate expects of one cell in one step.
func allowedIn(t *testing.T, r *report, from, to, port string) bool {
	t.Helper()
	found, allowed := false, false
	for i, f := range r.flows {
		if f.from.name == from && f.to.name == to && f.servicePort.String() == port {
			require.True(t, !found || allowed == r.want[i].allowed, "%s -> %s:%s: the families differ", from, to, port)
			found, allowed = true, r.want[i].allowed
		}
	}
	require.True(t, found, "no cell %s -> %s:%s", from, to, port)
	return allowed
}

// What the story says of itself, apart from the goldens.
func TestStoryKeepsItsWord(t *testing.T) {
	for _, families := range [][]int{{4}, {6}, {4, 6}} {
		_, reports := story(t, families...)
		require.GreaterOrEqual(t, len(reports), 10)
		first, deny, last := reports[0], reports[1], reports[len(reports)-1]
		for i, f := range first.flows {
			require.True(t, first.want[i].allowed, "%v before any policy", f)
		}
		for i, f := range deny.flows {
			protected := f.from.pod != nil || f.to.pod != nil && f.to.name != "dns"
			own := f.from.name == "node-1" && slices.Contains([]string{"frontend", "users", "monitor"}, f.to.name)
			if protected && !own {
				require.False(t, deny.want[i].allowed, "%v under default deny", f)
			} else {
				require.True(t, deny.want[i].allowed, "%v under default deny", f)
			}
		}
		for i, f := range last.flows {
			require.True(t, last.want[i].allowed, "%v after the last policy", f)
		}
		for _, c := range []struct {
			step           int
			from, to, port string
			want           bool
		}{
			{3, "frontend", "dns", "53/udp", true}, {3, "database", "dns", "53/udp", true},
			{4, "frontend", "users", "8080", true}, {4, "frontend", "users", "9090", false}, {4, "tasks", "users", "8080", false},
			{5, "auth", "database", "5432", true}, {5, "frontend", "database", "5432", false},
			{6, "partner", "frontend", "80", true}, {6, "banned", "frontend", "80", false},
			{6, "frontend", "partner", "8000", true}, {6, "frontend", "partner", "8011", false}, {6, "frontend", "banned", "8000", false},
			{7, "monitor", "users", "9090", true}, {7, "monitor", "auth", "9091", false},
			{8, "monitor", "users", "9090", true}, {8, "monitor", "auth", "9091", true},
			{9, "frontend", "tasks", "8080", false}, {9, "tasks", "database", "5432", false}, {9, "users", "database", "5432", true},
			{10, "frontend", "auth", "8080", true}, {10, "auth", "database", "5432", true}, {10, "node-1", "auth", "8080", true},
			{11, "monitor", "users", "9090", false}, {11, "monitor", "dns", "53/udp", true},
		} {
			require.Equal(t, c.want, allowedIn(t, reports[c.step-1], c.from, c.to, c.port), "step %d: %s -> %s:%s", c.step, c.from, c.to, c.port)
		}
		for _, r := range reports[1:] {
			require.NotEmpty(t, r.witnesses(), "nothing to see in step %d", r.number)
		}
	}
}

func TestStoryManifestsAreValid(t *testing.T) {
	s, _ := story(t, 4, 6)
	files, err := s.files()
	require.NoError(t, err)
	dir := t.TempDir()
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	back, err := manifest.Load(dir)
	require.NoError(t, err)
	require.Len(t, back.Pods, len(s.objects.Pods))
	require.Len(t, back.Nodes, 2)
	entries, err := storyFiles.ReadDir("story")
	require.NoError(t, err)
	for _, e := range entries {
		_, err := manifest.Load(filepath.Join("story", e.Name()))
		require.NoError(t, err, "a file of the story, as the user would read it")
	}
}
