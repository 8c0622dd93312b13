package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// report is what of Ginkgo's JUnit report matters here.
type report struct {
	Cases []reportCase `xml:"testsuite>testcase"`
}

type reportCase struct {
	Name    string `xml:"name,attr"`
	Status  string `xml:"status,attr"` // passed, failed, skipped, ...
	Failure struct {
		Message string `xml:"message,attr"`
	} `xml:"failure"`
}

// ownSuite is our own cases in the form of a JUnit report.
type ownSuite struct {
	XMLName  xml.Name  `xml:"testsuite"`
	Name     string    `xml:"name,attr"`
	Tests    int       `xml:"tests,attr"`
	Failures int       `xml:"failures,attr"`
	Cases    []ownCase `xml:"testcase"`
}

type ownCase struct {
	Name    string      `xml:"name,attr"`
	Status  string      `xml:"status,attr"`
	Time    string      `xml:"time,attr"`
	Failure *ownFailure `xml:"failure,omitempty"`
}

type ownFailure struct {
	Message string `xml:"message,attr"`
}

// writeJUnit writes the report that was asked for: the suite's own, as it is, and our
// own cases behind it.
func (s *suite) writeJUnit() error {
	if s.junit == "" {
		return nil
	}
	const end = "</testsuites>"
	upstream, err := os.ReadFile(filepath.Join(s.dir, reportFile))
	if errors.Is(err, os.ErrNotExist) {
		upstream, err = []byte(xml.Header+"<testsuites>"+end), nil
	}
	at := strings.LastIndex(string(upstream), end)
	if err == nil && at < 0 {
		err = fmt.Errorf("%s has no %s", reportFile, end)
	}
	own := ownSuite{Name: "Portcullis", Tests: len(s.results)}
	for _, r := range s.results {
		c := ownCase{Name: r.name, Status: "passed", Time: fmt.Sprintf("%.3f", r.seconds)}
		if r.err != nil {
			own.Failures++
			c.Status, c.Failure = "failed", &ownFailure{r.err.Error()}
		}
		own.Cases = append(own.Cases, c)
	}
	var text []byte
	if err == nil {
		text, err = xml.MarshalIndent(own, "  ", "  ")
	}
	if err == nil {
		err = os.WriteFile(s.junit, slices.Concat(upstream[:at], text, []byte("\n"+end+"\n")), 0o644)
	}
	if err != nil {
		return fmt.Errorf("JUnit report: %w", err)
	}
	return nil
}

// labels is what Ginkgo appends to the names in the report.
var labels = regexp.MustCompile(` \[[^\[\]]*, [^\[\]]*\]$`)

func readReport(file string) (*report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all, err := parseReport(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	specs := &report{}
	for _, c := range all.Cases {
		// Not the suite's own steps before and after the specs.
		if name, ok := strings.CutPrefix(c.Name, "[It] "); ok {
			c.Name = labels.ReplaceAllString(name, "")
			specs.Cases = append(specs.Cases, c)
		}
	}
	return specs, nil
}

func parseReport(data []byte) (*report, error) {
	r := &report{}
	return r, xml.Unmarshal(data, r)
}

// skipped lists the specs that did not run and whose name matches.
func (r *report) skipped(name *regexp.Regexp) []string {
	var out []string
	for _, c := range r.Cases {
		if c.Status == "skipped" && name.MatchString(c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

func (r *report) count(status string) int {
	n := 0
	for _, c := range r.Cases {
		if c.Status == status {
			n++
		}
	}
	return n
}

// printSummary prints what the suite's log says at its end.
func printSummary(w io.Writer, log string) error {
	data, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	text := string(data)
	at := -1
	for _, start := range []string{"\nSummarizing ", "\nRan "} {
		if at = strings.LastIndex(text, start); at >= 0 {
			break
		}
	}
	if at < 0 { // it never got there
		at = max(0, len(text)-2000)
	}
	_, err = fmt.Fprintln(w, text[at:])
	return err
}
