package quickstart

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Step is a command and what the document says about it.
type Step struct {
	Line    int    // of the document, counted from 1
	Command string // without the comment about its exit status
	Output  []string
	Exit    int
}

const (
	heading = "## Quick start"
	prompt  = "$ "
)

var (
	headingLine = regexp.MustCompile(`^##? `)
	exitComment = regexp.MustCompile(`^(.*\S)\s+# exit status (\d+)$`)
)

// parser reads a document line by line.
type parser struct {
	found, inside, fenced bool // the section; we are in it; we are in a block of it
	steps                 []Step
}

// Parse finds the commands of a document's section.
func Parse(document string) ([]Step, error) {
	p := &parser{}
	number := 0
	for line := range strings.Lines(document) {
		number++
		if err := p.line(number, strings.TrimRight(line, " \n")); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch {
	case !p.found:
		return nil, fmt.Errorf("no section %q", heading)
	case p.fenced:
		return nil, errors.New("a block does not end")
	case len(p.steps) == 0:
		return nil, fmt.Errorf("no commands in the section %q", heading)
	}
	return p.steps, nil
}

func (p *parser) line(number int, line string) error {
	switch {
	case !p.fenced && headingLine.MatchString(line):
		p.inside = line == heading
		p.found = p.found || p.inside
	case !p.inside:
	case p.fenced && line == "```":
		p.fenced = false
	case p.fenced:
		return p.console(number, line)
	case line == "```console":
		p.fenced = true
	case strings.HasPrefix(strings.TrimSpace(line), "```"), strings.HasPrefix(line, "    "), strings.HasPrefix(line, "\t"):
		return errors.New("a block of code that is not ```console")
	}
	return nil
}

// console takes a line of a block.
func (p *parser) console(number int, line string) error {
	if command, ok := strings.CutPrefix(line, prompt); ok {
		s := Step{Line: number, Command: command}
		if m := exitComment.FindStringSubmatch(command); m != nil {
			exit, err := strconv.Atoi(m[2])
			if err != nil {
				return err
			}
			s.Command, s.Exit = m[1], exit
		}
		p.steps = append(p.steps, s)
		return nil
	}
	if len(p.steps) == 0 {
		return errors.New("output without a command")
	}
	last := &p.steps[len(p.steps)-1]
	last.Output = append(last.Output, line)
	return nil
}

// anything is the word of the document for what varies.
const anything = "…"

// Matches tells whether a command has done what the document says.
func (s Step) Matches(exit int, output string) bool {
	return exit == s.Exit && s.pattern().MatchString(lines(output))
}

// lines makes every line end, without blanks before its end.
func lines(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		b.WriteString(strings.TrimRight(line, " \t\r\n") + "\n")
	}
	return b.String()
}

// pattern matches what the document shows.
func (s Step) pattern() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range s.Output {
		if line == anything {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		for i, part := range strings.Split(line, anything) {
			if i > 0 {
				b.WriteString(`.*?`)
			}
			b.WriteString(regexp.QuoteMeta(part))
		}
		b.WriteString(`\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}
