package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profiler writes profiles of this process; with an empty dir it writes none.
type profiler struct{ dir, name string }

// during runs f and writes a CPU profile of it.
func (p *profiler) during(phase string, f func() error) error {
	stop, err := p.start(phase)
	if err != nil {
		return err
	}
	return errors.Join(f(), stop())
}

// start begins a CPU profile, which stop ends and writes.
func (p *profiler) start(phase string) (stop func() error, err error) {
	if p.dir == "" {
		return func() error { return nil }, nil
	}
	out, err := p.create(phase + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(fmt.Errorf("CPU profile: %w", err), out.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return out.Close()
	}, nil
}

// heap writes what is live now, and what was allocated since the process began.
func (p *profiler) heap(phase string) (err error) {
	if p.dir == "" {
		return nil
	}
	out, err := p.create(phase + ".heap")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	runtime.GC() // the profile is as of the last collection
	return pprof.Lookup("heap").WriteTo(out, 0)
}

func (p *profiler) create(phase string) (*os.File, error) {
	return os.Create(filepath.Join(p.dir, p.name+"-"+phase+".pprof"))
}
