package scenario

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/conformance/cluster"
)

func TestFlows(t *testing.T) {
	for text, want := range map[string]Flow{
		"a>b:80":     {"a", "b", 80, true},
		"!a>b:65535": {"a", "b", 65535, false},
	} {
		got, err := parseFlow(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a>b", "a:80", "a>b:x", "a>b:65536"} {
		if f, err := parseFlow(text); err == nil {
			t.Errorf("%q is read as %v", text, f)
		}
	}
}

func TestJudge(t *testing.T) {
	open, closed := Flow{Open: true}, Flow{}
	connected, silent, refused := attempt{open: true}, attempt{err: os.ErrDeadlineExceeded}, attempt{err: unix.ECONNREFUSED}
	for _, c := range []struct {
		deny    string
		flow    Flow
		attempt attempt
		right   bool
	}{
		{"drop", open, connected, true},
		{"drop", open, silent, false},
		{"drop", open, refused, false},
		{"drop", closed, connected, false},
		{"drop", closed, silent, true},
		{"drop", closed, refused, false}, // it reached somebody
		{"reject", closed, refused, true},
		{"reject", closed, connected, false},
	} {
		s := &stage{Config: Config{Cluster: &cluster.Cluster{Config: cluster.Config{Deny: c.deny}}}}
		if how := s.judge(c.flow, c.attempt); (how == "") != c.right {
			t.Errorf("%+v: %q", c, how)
		}
	}
}

// TestPlay: what must aborts becomes the case's error, and nothing else does.
func TestPlay(t *testing.T) {
	wrong := &WrongFlows{"a step", []Wrong{{Flow: Flow{"a", "b", 80, true}, How: "no"}}}
	broken := errors.New("broken")
	for _, err := range []error{nil, wrong, broken} {
		s := &stage{doing: "a step"}
		got := func() (got error) {
			defer func() { got = recovered(recover()) }()
			s.must(err)
			return nil
		}()
		var w *WrongFlows
		if !errors.Is(got, err) || errors.As(got, &w) != (err == wrong) {
			t.Errorf("%v became %v", err, got)
		}
	}
	defer func() {
		if recover() != "a mistake" {
			t.Error("a panic that is no abort is swallowed")
		}
	}()
	_ = recovered("a mistake")
}

// TestCasesAreApart: namespaces are made and deleted by their cases alone.
func TestCasesAreApart(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases() {
		for _, n := range append(c.namespaces, c.Name) {
			if seen[n] {
				t.Errorf("%s is used twice", n)
			}
			seen[n] = true
		}
	}
}
