// Package plan is what the command vm and the init of its guest say to each other.
package plan

import "time"

// File is where the guest finds its Plan, as JSON.
const File = "/plan.json"

// Plan is what the guest does between boot and power-off.
type Plan struct {
	Modules []string // files to load, in order
	Runs    []Run
}

// Run is one program to run.
type Run struct {
	Name string
	Path string
	Args []string
	Dir  string
	Env  []string // in addition to what the guest sets for all
	Logs []string // patterns of files of which the end is shown if it fails

	Limit time.Duration // after which it is told to end, by SIGTERM; 0: never
}

// Report is one line of JSON on the second serial line.
type Report struct {
	Kernel  string  `json:",omitempty"` // first: the release that has booted
	Run     string  `json:",omitempty"` // how a Run has ended
	Exit    int     `json:",omitempty"`
	Seconds float64 `json:",omitempty"`
	Error   string  `json:",omitempty"` // what kept the guest from its Plan
	Done    bool    `json:",omitempty"` // last: everything of the Plan was run
}
