package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long no file must have changed before the directory is read:
	// whoever writes several files writes them in one go.
	quiet = 10 * time.Millisecond
	// impatience bounds the wait for quiet.
	impatience = 250 * time.Millisecond
	// lookEvery is for file systems that tell nothing (network mounts), and for
	// watches that could not be had.
	lookEvery = 10 * time.Second
)

// Manifests reads the directory dir and follows its changes. A file that is wrong at
// the start is an error of Run, before anything is written; one that becomes wrong
// later keeps the objects that it had.
func Manifests(dir string) Source {
	return &manifestSource{dir: dir}
}

type manifestSource struct {
	dir string
}

func (s *manifestSource) run(ctx context.Context, to sink) error {
	root, err := filepath.Abs(s.dir)
	if err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", root, err)
	}
	defer watcher.Close()
	w := &manifestWatch{sink: to, root: root, watcher: watcher, refused: map[string]bool{}, files: newManifestFiles(root)}
	if err := w.start(); err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	for {
		if !w.wait(ctx) {
			return nil
		}
		w.follow()
	}
}

// manifestWatch carries the changes of a directory to the sink.
type manifestWatch struct {
	sink    sink
	root    string
	watcher *fsnotify.Watcher
	refused map[string]bool // directories that cannot be watched, logged once
	files   *manifestFiles
	seen    string // fingerprint of what was read last
	synced  bool
}

// start reads the directory for the first time.
func (w *manifestWatch) start() error {
	files, seen, err := w.look()
	if err != nil {
		return err
	}
	w.seen = seen
	events, problems := w.files.update(files)
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	w.deliver(events, revision(files))
	if w.files.local(w.sink.node) == 0 {
		w.sink.log.Warn("none of the manifests' pods is on this node", "node", w.sink.node, "directory", w.root)
	}
	return nil
}

// follow reads the directory again and delivers what has changed.
func (w *manifestWatch) follow() {
	files, seen, err := w.look()
	if err != nil {
		seen = err.Error()
	}
	if seen == w.seen {
		return
	}
	w.seen = seen
	if err != nil {
		w.report([]error{err})
		w.sink.queue.put(batch{marked: true})
		return
	}
	events, problems := w.files.update(files)
	w.report(problems)
	if len(problems) > 0 {
		w.deliver(events, "")
		return
	}
	w.deliver(events, revision(files))
}

// deliver puts events, which lead to revision, or to none if it is "".
func (w *manifestWatch) deliver(events []event, revision string) {
	b := batch{events: events, begun: true, marked: true, revision: revision}
	if w.files.knowsNode(w.sink.node) {
		w.sink.health.notReady(aboutNode, "")
		w.synced = true
	} else {
		reason := fmt.Sprintf("the manifests have Nodes, but none named %q; is --node-name right?", w.sink.node)
		w.sink.health.notReady(aboutNode, reason)
		w.sink.log.Error(reason, "node", w.sink.node)
	}
	b.synced = w.synced
	w.sink.queue.put(b)
}

// report logs what is wrong with the files, one line each.
func (w *manifestWatch) report(problems []error) {
	if len(problems) == 0 {
		w.sink.health.notReady(aboutManifests, "")
		return
	}
	w.sink.health.notReady(aboutManifests, errors.Join(problems...).Error())
	for _, p := range problems {
		w.sink.log.Error("manifests cannot be used; what they said before stays in force", "error", p)
	}
}

// look reads the directory and sees to it that its next change is heard of.
func (w *manifestWatch) look() (files []content, fingerprint string, err error) {
	w.watch(filepath.Dir(w.root)) // the directory itself can be a link that is swapped
	return readTwice(directory{root: w.root, entered: w.watch}.read)
}

// readTwice reads until two readings agree, so that a change that is being made (links
// being swapped, files being renamed) is not seen half made. The fingerprint differs
// wherever the files or their errors do.
func readTwice(read func() ([]content, error)) (files []content, fingerprint string, err error) {
	for range 4 {
		if files, err = read(); err != nil {
			return nil, "", err
		}
		now := revision(files)
		for _, f := range files {
			if f.err != nil {
				now += "\n" + f.err.Error()
			}
		}
		if now == fingerprint {
			break
		}
		fingerprint = now
	}
	return files, fingerprint, nil
}

// watch asks for the events of a directory; asking again does nothing.
func (w *manifestWatch) watch(dir string) {
	if err := w.watcher.Add(dir); err != nil && !w.refused[dir] {
		w.refused[dir] = true
		w.sink.log.Warn("changes in this directory are seen late", "directory", dir, "after", lookEvery, "error", err)
	}
}

// wait returns once the directory may have changed and is quiet again; false means
// that ctx has ended.
func (w *manifestWatch) wait(ctx context.Context) bool {
	tick := w.sink.clock.NewTimer(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C():
			return true
		case err := <-w.watcher.Errors:
			w.sink.log.Debug("file events were lost; reading everything", "error", err)
			return true
		case e := <-w.watcher.Events:
			if w.concerns(e) {
				return w.settle(ctx)
			}
		}
	}
}

// settle waits until no file has changed for a moment.
func (w *manifestWatch) settle(ctx context.Context) bool {
	enough := w.sink.clock.NewTimer(impatience)
	defer enough.Stop()
	for {
		still := w.sink.clock.NewTimer(quiet)
		select {
		case <-ctx.Done():
			still.Stop()
			return false
		case <-still.C():
			return true
		case <-enough.C():
			still.Stop()
			return true
		case <-w.watcher.Events:
			still.Stop()
		}
	}
}

// concerns passes over events beside the directory: its parent is watched too.
func (w *manifestWatch) concerns(e fsnotify.Event) bool {
	return filepath.Dir(e.Name) != filepath.Dir(w.root) || e.Name == w.root
}
