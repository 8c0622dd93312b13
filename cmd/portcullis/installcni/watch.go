package installcni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is the pause between a change and what is done about it. Whoever writes
	// a file in place is done by then, and a plugin that insists on a configuration
	// without ours cannot keep us busier than this.
	settle = 250 * time.Millisecond
	// lookAgain is how often the configuration is looked at without a change, for
	// changes behind symbolic links and directories that are made anew.
	lookAgain = time.Minute
)

// Watch installs the plugin, and again whenever the configuration or the binary
// changes, until ctx ends; it then returns nil and leaves everything in place. What
// goes wrong meanwhile is logged and tried again. Only settings that are wrong, and a
// system without inotify, end it with an error.
func (c Config) Watch(ctx context.Context) error { return c.watch(ctx, settle, lookAgain) }

func (c Config) watch(ctx context.Context, settle, lookAgain time.Duration) error {
	if err := c.Settings.Validate(); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the CNI configuration: %w", err)
	}
	defer w.Close()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	said := ""
	for {
		// The watch comes before the look, so that no change falls between.
		err := errors.Join(w.Add(c.ConfDir), w.Add(c.BinDir), c.Install())
		if now := fmt.Sprint(err); now != said {
			said = now
			if err == nil {
				c.Logger.Info("the CNI plugin is installed; watching", "dir", c.ConfDir)
			} else {
				c.Logger.Warn("the CNI plugin is not installed yet", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case err := <-w.Errors:
			c.Logger.Warn("watch the CNI configuration", "err", err) // such as lost events
		case <-w.Events:
			if !drain(ctx, w, settle) {
				return nil
			}
		}
	}
}

// drain waits and takes what happens meanwhile. It reports whether ctx goes on.
func drain(ctx context.Context, w *fsnotify.Watcher, settle time.Duration) bool {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-w.Events:
		}
	}
}
