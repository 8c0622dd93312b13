package quickstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

const document = "# A\n\n```sh\nnot here\n```\n\n## Quick start\n\nText.\n\n```console\n$ first --flag\nout …\n\n…\nend\n" +
	"$ second # not a status\n$ third -- x # exit status 7\nno\n```\n\n### Part\n\n```console\n$ fourth\n```\n\n## B\n\n    $ nor here\n"

func TestParse(t *testing.T) {
	got, err := Parse(document)
	want := []Step{
		{Line: 12, Command: "first --flag", Output: []string{"out …", "", "…", "end"}},
		{Line: 17, Command: "second # not a status"},
		{Line: 18, Command: "third -- x", Output: []string{"no"}, Exit: 7},
		{Line: 25, Command: "fourth"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestUntested: nothing in the section that looks like commands goes untested.
func TestUntested(t *testing.T) {
	for name, text := range map[string]string{
		"no section":     "## Quick Start\n```console\n$ a\n```\n",
		"no commands":    "## Quick start\nText.\n",
		"no end":         "## Quick start\n```console\n$ a\n",
		"other language": "## Quick start\n```console\n$ a\n```\n```sh\nb\n```\n",
		"in a list":      "## Quick start\n```console\n$ a\n```\n- b\n  ```console\n  $ c\n  ```\n",
		"indented":       "## Quick start\n```console\n$ a\n```\n\n    b\n",
		"no prompt":      "## Quick start\n```console\na\n```\n",
	} {
		if steps, err := Parse(text); err == nil {
			t.Errorf("%s: %+v", name, steps)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		name, shown, output string
		want                bool
	}{
		{"nothing", "", "", true},
		{"something", "", "a\n", false},
		{"same", "a\nb", "a\nb\n", true},
		{"without the last end of line", "a", "a", true},
		{"blanks at the end", "a\n\nb", "a  \n\t\nb\n", true},
		{"an empty line more", "a", "a\n\n", false},
		{"other order", "a\nb", "b\na\n", false},
		{"more", "a", "a\nb\n", false},
		{"less", "a\nb", "a\n", false},
		{"part of a line", "a", "aa\n", false},
		{"within a line", "pod-… in …s", "pod-x7 in 0.3s\n", true},
		{"nothing within a line", "a…b", "ab\n", true},
		{"not over lines", "a…b", "a\nb\n", false},
		{"any lines", "a\n…\nd", "a\nb\nc\nd\n", true},
		{"no lines", "a\n…\nd", "a\nd\n", true},
		{"all", "…", "a\nb\n", true},
		{"all, and it is nothing", "…", "", true},
		{"literally", "a.c (1)", "abc (1)\n", false},
	} {
		s := Step{}
		if c.shown != "" {
			s.Output = strings.Split(c.shown, "\n")
		}
		if got := s.Matches(0, c.output); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if s.Matches(1, c.output) {
			t.Errorf("%s: matches with another exit status", c.name)
		}
	}
}

// TestRun: a command that asks is asked again, one that changes something is not.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, command string
		patience      time.Duration
		runs          int
		good          bool
	}{
		{"at last", "kubectl get pods", time.Hour, 3, true},
		{"never", "kubectl get pods", 0, 1, false},
		{"change", "kubectl -n shop apply -f x", time.Hour, 1, false},
	} {
		runs := 0
		shell := func(context.Context, string) (int, string, error) {
			runs++
			return 0, fmt.Sprintln("run", runs), nil
		}
		cfg := Config{Shell: shell, Patience: c.patience, Out: io.Discard}
		err := Run(t.Context(), cfg, []Step{{Line: 4, Command: c.command, Output: []string{"run 3"}}})
		if (err == nil) != c.good || runs != c.runs {
			t.Errorf("%s: %d runs, %v", c.name, runs, err)
		}
		if d := (*Difference)(nil); !c.good && (!errors.As(err, &d) || !strings.Contains(err.Error(), "line 4: "+c.command)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
