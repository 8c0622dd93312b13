package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/scenario"
)

// TestJUnitHasBoth: the report has the specs of the suite, if it ran, and our own.
func TestJUnitHasBoth(t *testing.T) {
	for _, upstream := range []bool{true, false} {
		dir := t.TempDir()
		if upstream {
			if err := os.WriteFile(filepath.Join(dir, reportFile), []byte(controlReport), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "out.xml")
		s := &suite{runner: &runner{options: &options{junit: file}}, dir: dir, results: []ownResult{
			{"good", 1.5, nil}, {"bad", 0.25, errors.New(`"<&>"`)},
		}}
		if err := s.writeJUnit(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := parseReport(data)
		if err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		want := 2
		if upstream {
			want += 5
		}
		last := found.Cases[len(found.Cases)-1]
		if len(found.Cases) != want || last.Name != "bad" || last.Status != "failed" || last.Failure.Message != `"<&>"` {
			t.Errorf("%d cases; the last is %+v", len(found.Cases), last)
		}
	}
}

func TestOwnCases(t *testing.T) {
	for focus, want := range map[string]int{"": len(scenario.Cases()), "hostNetwork": 1} {
		if got, err := ownCases(focus); err != nil || len(got) != want {
			t.Errorf("%q: %d cases, %v", focus, len(got), err)
		}
	}
	for _, focus := range []string{"no such case", "("} {
		if _, err := ownCases(focus); err == nil {
			t.Errorf("%q chooses something", focus)
		}
	}
}

// TestOwnControl: only flows that are open and should be closed show a missing agent.
func TestOwnControl(t *testing.T) {
	flow := func(open bool) scenario.Wrong { return scenario.Wrong{Flow: scenario.Flow{Open: open}} }
	for _, c := range []struct {
		name string
		err  error
		good bool
	}{
		{"policy in force", nil, false},
		{"broken otherwise", errors.New("timed out"), false},
		{"not isolated", &scenario.WrongFlows{Flows: []scenario.Wrong{flow(false)}}, true},
		{"broken network", &scenario.WrongFlows{Flows: []scenario.Wrong{flow(false), flow(true)}}, false},
	} {
		if err := judgeOwnControl(ownResult{name: c.name, err: c.err}); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestOwnFlags: our own cases look into their cluster, so it must be one made here.
func TestOwnFlags(t *testing.T) {
	for args, want := range map[string]bool{
		"--own": true, "--own --focus x --junit y": true, "--own --agent none --focus x": true, "--own --all": true,
		"--own --kubeconfig x": false, "--agent none --focus x": false, "--own --agent none --all": false,
	} {
		if _, err := parse(strings.Fields(args)); (err == nil) != want {
			t.Errorf("%s: %v", args, err)
		}
	}
}
