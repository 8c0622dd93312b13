package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
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

// labels is what Ginkgo appends to the names in the report.
var labels = regexp.MustCompile(` \[[^\[\]]*, [^\[\]]*\]$`)

func readReport(file string) (*report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := &report{}
	if err := xml.Unmarshal(data, all); err != nil {
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
