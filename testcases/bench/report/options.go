package report

import "regexp"

// Options is what a run asks of every part of it.
type Options struct {
	// Quick asks for fewer sizes and rounds.
	Quick bool
	// Only keeps the tables whose name it matches; nil keeps all of them.
	Only *regexp.Regexp
	// Progress is told what happens, a line at a time, without a line break. It may be nil.
	Progress func(line string)
}

// Wants reports whether a table of this name is to be made.
func (o Options) Wants(table string) bool { return o.Only == nil || o.Only.MatchString(table) }

// Say tells Progress.
func (o Options) Say(line string) {
	if o.Progress != nil {
		o.Progress(line)
	}
}
