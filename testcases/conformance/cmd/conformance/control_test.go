package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const controlReport = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="Kubernetes network policy">
<testcase name="[ReportBeforeSuite]" status="passed"></testcase>
<testcase name="[It] Netpol should properly isolate pods that are selected by a policy allowing SCTP, even" status="failed"><failure message="Had 1 wrong results in reachability matrix" type="failed"></failure></testcase>
<testcase name="[It] Netpol should deny egress from pods based on PodSelector" status="failed"><failure message="Had 2 wrong results in reachability matrix" type="failed"></failure></testcase>
<testcase name="[It] Netpol should support allow-all policy" status="passed"></testcase>
<testcase name="[It] Netpol another" status="skipped"></testcase>
</testsuite></testsuites>`

func TestNegativeControl(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"as it should be", "", "", ""},
		{"policy in force", `status="failed"><failure message="Had 2 wrong results in reachability matrix" type="failed"></failure>`, `status="passed">`, "should fail"},
		{"broken otherwise", "Had 2 wrong results in reachability matrix", "timed out", "should fail"},
		{"broken network", `should support allow-all policy" status="passed"`, `should support allow-all policy" status="failed"`, "needs no agent"},
		{"did not run", `should support allow-all policy" status="passed"`, `should support allow-all policy" status="skipped"`, "2 specs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := controlReport
			if c.old != "" {
				text = strings.Replace(text, c.old, c.new, 1)
				if text == controlReport {
					t.Fatal("nothing replaced")
				}
			}
			file := filepath.Join(t.TempDir(), "junit.xml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			found, err := readReport(file)
			if err != nil {
				t.Fatal(err)
			}
			err = judgeControl(found)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	passed, sctp := reportCase{Name: "a", Status: "passed"}, reportCase{Name: "Netpol SCTPConnectivity", Status: "skipped"}
	for _, c := range []struct {
		name  string
		suite suite
		cases []reportCase
		ok    bool
	}{
		{"all", suite{}, []reportCase{passed}, true},
		{"no SCTP here", suite{noSCTP: true}, []reportCase{passed, sctp}, true},
		{"SCTP here", suite{}, []reportCase{passed, sctp}, false},
		{"one left out", suite{noSCTP: true}, []reportCase{passed, {Name: "b", Status: "skipped"}}, false},
		{"chosen", suite{focus: "a"}, []reportCase{passed, {Name: "b", Status: "skipped"}}, true},
		{"chosen and failed", suite{focus: "a"}, []reportCase{{Name: "a", Status: "failed"}, {Name: "b", Status: "skipped"}}, true},
		{"nothing matches", suite{focus: "x"}, []reportCase{sctp}, false},
	} {
		if err := c.suite.complete(&report{Cases: c.cases}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
