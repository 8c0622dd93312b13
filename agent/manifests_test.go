package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// eventsOnly is a clock by which it is never time to look at a directory for no reason.
type eventsOnly struct{ clock.RealClock }

func (c eventsOnly) NewTimer(d time.Duration) clock.Timer {
	if d == lookEvery {
		d = 1000 * time.Hour
	}
	return c.RealClock.NewTimer(d)
}

// manifestTest runs the manifest source on a directory.
type manifestTest struct {
	dir    string
	queue  *queue
	health *health
	log    *logbook
	ended  chan error
	cancel context.CancelFunc

	synced bool
	now    map[key]any
	marks  []string
}

func startManifests(t *testing.T, dir string) *manifestTest {
	book, logger := newLogbook()
	m := &manifestTest{dir: dir, queue: newQueue(clock.RealClock{}), health: newHealth(clock.RealClock{}), log: book, ended: make(chan error, 1), now: map[key]any{}}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		m.ended <- Manifests(dir).run(ctx, sink{node: "node-1", queue: m.queue, health: m.health, log: logger, clock: eventsOnly{}})
	}()
	t.Cleanup(cancel)
	return m
}

// take applies what the source has delivered.
func (m *manifestTest) take() {
	b := m.queue.take()
	m.synced = m.synced || b.synced
	for _, e := range b.events {
		if m.now[e.key] = e.object; e.object == nil {
			delete(m.now, e.key)
		}
	}
	if b.marked {
		m.marks = append(m.marks, b.revision)
	}
}

// waitMark waits until the source says that it has delivered a revision.
func (m *manifestTest) waitMark(t *testing.T, revision string) {
	t.Helper()
	eventually(t, "revision "+revision, func() bool {
		m.take()
		return len(m.marks) > 0 && m.marks[len(m.marks)-1] == revision
	})
}

func (m *manifestTest) waitDir(t *testing.T) {
	t.Helper()
	m.waitMark(t, revisionOf(t, m.dir))
}

func (m *manifestTest) pods() []string {
	var names []string
	for k := range m.now {
		if k.kind == podKind {
			names = append(names, k.name)
		}
	}
	return names
}

func podYAML(name, label string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {role: %s}}\n"+
		"spec: {nodeName: node-1, containers: [{name: c, image: i}]}\nstatus: {phase: Running, podIPs: [{ip: 10.244.1.%d}]}\n---\n", name, label, name[0])
}

// TestManifestsFollow delivers what the directory holds and then every change of it:
// a file added, changed, renamed into place, moved away, removed, and a directory in it.
func TestManifestsFollow(t *testing.T) {
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web")})
	m := startManifests(t, dir)
	m.waitDir(t)
	require.True(t, m.synced)
	require.Equal(t, []string{"a"}, m.pods())
	require.Contains(t, m.now, key{namespaceKind, "", "shop"})

	write(t, dir, map[string]string{"b.yaml": podYAML("b", "web")})
	m.waitDir(t)
	require.ElementsMatch(t, []string{"a", "b"}, m.pods())

	write(t, dir, map[string]string{".a.tmp": podYAML("a", "db") + podYAML("c", "db")})
	require.NoError(t, os.Rename(filepath.Join(dir, ".a.tmp"), filepath.Join(dir, "a.yaml")))
	m.waitDir(t)
	require.ElementsMatch(t, []string{"a", "b", "c"}, m.pods())
	require.Equal(t, "db", m.now[pod("a")].(*corev1.Pod).Labels["role"])

	write(t, dir, map[string]string{"sub/deep/d.yaml": podYAML("d", "web")})
	m.waitDir(t)
	write(t, dir, map[string]string{"sub/deep/e.yaml": podYAML("e", "web")})
	m.waitDir(t)
	require.ElementsMatch(t, []string{"a", "b", "c", "d", "e"}, m.pods())

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "sub")))
	require.NoError(t, os.Remove(filepath.Join(dir, "a.yaml")))
	m.waitDir(t)
	require.Equal(t, []string{"b"}, m.pods())
	require.NoError(t, os.Remove(filepath.Join(dir, "b.yaml")))
	m.waitDir(t)
	require.Empty(t, m.now)
	m.cancel()
	require.NoError(t, <-m.ended)
}

// TestManifestsDeliverDifferences delivers only objects that differ.
func TestManifestsDeliverDifferences(t *testing.T) {
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web") + podYAML("b", "web") + podYAML("c", "web")})
	m := startManifests(t, dir)
	m.waitDir(t)
	write(t, dir, map[string]string{"a.yaml": "# a comment\n" + podYAML("a", "web") + podYAML("b", "db")})
	want := revisionOf(t, dir)
	var events []event
	eventually(t, "the change", func() bool {
		b := m.queue.take()
		events = append(events, b.events...)
		return b.marked && b.revision == want
	})
	require.Len(t, events, 2)
	require.Equal(t, pod("b"), events[0].key)
	require.Equal(t, event{pod("c"), nil}, events[1])
}

// TestManifestsSwap follows the swap of the links of a mounted ConfigMap, and that of
// the directory itself, and sees no state between the two.
func TestManifestsSwap(t *testing.T) {
	dir := written(t, map[string]string{"..1/a.yaml": podYAML("a", "web"), "..2/a.yaml": podYAML("b", "web")})
	require.NoError(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")))
	m := startManifests(t, dir)
	m.waitDir(t)
	require.Equal(t, []string{"a"}, m.pods())
	require.NoError(t, os.Symlink("..2", filepath.Join(dir, "..next")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")))
	m.waitDir(t)
	require.Equal(t, []string{"b"}, m.pods())

	parent := written(t, map[string]string{"1/a.yaml": podYAML("a", "web"), "2/a.yaml": podYAML("b", "web")})
	link := filepath.Join(parent, "current")
	require.NoError(t, os.Symlink("1", link))
	m = startManifests(t, link)
	m.waitDir(t)
	require.Equal(t, []string{"a"}, m.pods())
	require.NoError(t, os.Symlink("2", filepath.Join(parent, "next")))
	require.NoError(t, os.Rename(filepath.Join(parent, "next"), link))
	m.waitDir(t)
	require.Equal(t, []string{"b"}, m.pods())
	write(t, parent, map[string]string{"2/c.yaml": podYAML("c", "web")})
	m.waitDir(t)
	require.ElementsMatch(t, []string{"b", "c"}, m.pods())
}

// TestManifestsLinkedFile follows a file that a link leads to, wherever it is.
func TestManifestsLinkedFile(t *testing.T) {
	elsewhere := written(t, map[string]string{"x": podYAML("a", "web")})
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "x"), filepath.Join(dir, "a.yaml")))
	m := startManifests(t, dir)
	m.waitDir(t)
	require.Equal(t, []string{"a"}, m.pods())
	write(t, elsewhere, map[string]string{"new": podYAML("b", "web")})
	require.NoError(t, os.Rename(filepath.Join(elsewhere, "new"), filepath.Join(elsewhere, "x")))
	m.waitDir(t)
	require.Equal(t, []string{"b"}, m.pods())
}

// TestReadTwice believes a reading that is confirmed, and gives up on a directory that
// never rests.
func TestReadTwice(t *testing.T) {
	readings := func(texts ...string) func() ([]content, error) {
		return func() ([]content, error) {
			text := texts[0]
			texts = texts[1:]
			if text == "error" {
				return nil, os.ErrNotExist
			}
			return []content{{name: "a.yaml", data: []byte(text)}}, nil
		}
	}
	for want, texts := range map[string][]string{
		"same": {"same", "same"},
		"new":  {"old and new", "new", "new"},
		"4":    {"1", "2", "3", "4"},
	} {
		files, _, err := readTwice(readings(texts...))
		require.NoError(t, err)
		require.Equal(t, want, string(files[0].data))
	}
	_, _, err := readTwice(readings("old", "error"))
	require.ErrorIs(t, err, os.ErrNotExist)

	fails := func() ([]content, error) { return []content{{name: "a.yaml", err: os.ErrPermission}}, nil }
	_, bad, err := readTwice(fails)
	require.NoError(t, err)
	_, good, err := readTwice(readings("", ""))
	require.NoError(t, err)
	require.NotEqual(t, good, bad)
}

// TestManifestsBadFile keeps the last good objects of a file that becomes wrong, takes
// the other files' changes, reports the file, and recovers.
func TestManifestsBadFile(t *testing.T) {
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web"), "b.yaml": podYAML("b", "web")})
	m := startManifests(t, dir)
	m.waitDir(t)

	write(t, dir, map[string]string{".new": podYAML("x", "web") + strings.Replace(podYAML("a", "web"), "nodeName", "nodename", 1)})
	require.NoError(t, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "a.yaml")))
	m.waitMark(t, "")
	m.log.wait(t, "level=ERROR", "a.yaml", "Pod shop/a", "spec.nodename")
	require.Contains(t, strings.Join(m.health.obstacles(), "\n"), "a.yaml")
	require.ElementsMatch(t, []string{"a", "b"}, m.pods())

	write(t, dir, map[string]string{"b.yaml": podYAML("b", "db"), "c.yaml": "rubbish"})
	eventually(t, "the good file's change", func() bool {
		m.take()
		return m.now[pod("b")].(*corev1.Pod).Labels["role"] == "db"
	})
	m.log.wait(t, "level=ERROR", "c.yaml")
	require.ElementsMatch(t, []string{"a", "b"}, m.pods())

	require.NoError(t, os.Remove(filepath.Join(dir, "c.yaml")))
	write(t, dir, map[string]string{"a.yaml": podYAML("d", "web")})
	m.waitDir(t)
	require.ElementsMatch(t, []string{"d", "b"}, m.pods())
	require.NotContains(t, strings.Join(m.health.obstacles(), "\n"), aboutManifests)
}

// TestManifestsContradiction keeps everything while two files define the same object.
func TestManifestsContradiction(t *testing.T) {
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web")})
	m := startManifests(t, dir)
	m.waitDir(t)
	write(t, dir, map[string]string{"b.yaml": podYAML("a", "db") + podYAML("b", "db")})
	m.waitMark(t, "")
	m.log.wait(t, "level=ERROR", "Pod shop/a", "a.yaml", "b.yaml")
	require.Equal(t, []string{"a"}, m.pods())
	require.Equal(t, "web", m.now[pod("a")].(*corev1.Pod).Labels["role"])
	require.NoError(t, os.Remove(filepath.Join(dir, "a.yaml"))) // the move is complete
	m.waitDir(t)
	require.Equal(t, "db", m.now[pod("a")].(*corev1.Pod).Labels["role"])
	require.ElementsMatch(t, []string{"a", "b"}, m.pods())
}

// TestManifestsDirectoryGone keeps everything while the directory cannot be read.
func TestManifestsDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	write(t, dir, map[string]string{"a.yaml": podYAML("a", "web")})
	m := startManifests(t, dir)
	m.waitDir(t)
	require.NoError(t, os.Rename(dir, dir+".away"))
	m.waitMark(t, "")
	require.Equal(t, []string{"a"}, m.pods())
	require.Contains(t, strings.Join(m.health.obstacles(), "\n"), "no such file or directory")
	write(t, dir, map[string]string{"b.yaml": podYAML("b", "web")})
	m.waitDir(t)
	require.Equal(t, []string{"b"}, m.pods())
}

// TestManifestsBadAtStart is an error that names file, document, object and field, for
// every file that is wrong, and delivers nothing.
func TestManifestsBadAtStart(t *testing.T) {
	dir := written(t, map[string]string{
		"a.yaml": podYAML("a", "web") + strings.Replace(podYAML("b", "web"), "nodeName", "nodename", 1),
		"c.yaml": podYAML("c", "web"),
		"d.yaml": strings.Replace(podYAML("d", "web"), "kind: Pod", "kind: Pot", 1) + "]",
	})
	m := startManifests(t, dir)
	err := <-m.ended
	require.ErrorContains(t, err, filepath.Join(dir, "a.yaml"))
	require.ErrorContains(t, err, "document 2")
	require.ErrorContains(t, err, "Pod shop/b")
	require.ErrorContains(t, err, "spec.nodename")
	require.ErrorContains(t, err, filepath.Join(dir, "d.yaml"))
	m.take()
	require.False(t, m.synced)
	require.Empty(t, m.now)

	m = startManifests(t, filepath.Join(dir, "nowhere"))
	require.ErrorContains(t, <-m.ended, "nowhere")
}

// TestManifestsOtherNode does not start while the manifests have Nodes and the own is
// not among them; without any Node it warns if no pod is on this one.
func TestManifestsOtherNode(t *testing.T) {
	node := "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n---\n"
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web"), "nodes.yaml": node})
	m := startManifests(t, dir)
	m.log.wait(t, "level=ERROR", `none named \"node-1\"; is --node-name right?`)
	m.waitDir(t)
	require.False(t, m.synced)
	require.Contains(t, strings.Join(m.health.obstacles(), "\n"), "none named")
	write(t, dir, map[string]string{"nodes.yaml": node + strings.Replace(node, "node-2", "node-1", 1)})
	m.waitDir(t)
	require.True(t, m.synced)
	require.NotContains(t, strings.Join(m.health.obstacles(), "\n"), "none named")

	m = startManifests(t, written(t, map[string]string{"a.yaml": strings.Replace(podYAML("a", "web"), "node-1", "node-2", 1)}))
	m.log.wait(t, "level=WARN", "none of the manifests' pods is on this node", "node=node-1")
	m.waitDir(t)
	require.True(t, m.synced)
}

// TestManifestsUnchanged delivers nothing where nothing has changed, and what it has
// delivered is the receiver's own.
func TestManifestsUnchanged(t *testing.T) {
	dir := written(t, map[string]string{"a.yaml": podYAML("a", "web")})
	_, logger := newLogbook()
	watcher, err := fsnotify.NewWatcher()
	require.NoError(t, err)
	defer watcher.Close()
	w := &manifestWatch{sink: sink{node: "node-1", queue: newQueue(clock.RealClock{}), health: newHealth(clock.RealClock{}), log: logger},
		root: dir, watcher: watcher, refused: map[string]bool{}, files: newManifestFiles(dir)}
	require.NoError(t, w.start())
	delivered := w.sink.queue.take()
	require.True(t, delivered.marked)
	for _, e := range delivered.events {
		require.NotSame(t, w.files.objects[e.key], e.object)
	}
	w.follow()
	require.Equal(t, batch{synced: true}, w.sink.queue.take())
}
