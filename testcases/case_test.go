package testcases

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/manifest"
)

// testCase is one directory of cases/.
type testCase struct {
	Name    string
	About   string
	Covers  []int    // rows of README.md
	Reports []string // policies, "namespace/name", and namespaces that the compiler must complain about
	Absent  []string // namespaces that are used and do not exist at first
	Steps   []step   // the first one is the directory itself
}

// step is a change of the cluster and what must hold after it.
type step struct {
	Name    string // "start", "step-1", …
	Deletes []objectRef
	Applies *manifest.Objects
	Flows   []flowLine
}

// objectRef is a line of delete.txt: "Pod shop/web", "Namespace shop".
type objectRef struct {
	Kind, Namespace, Name string
}

// readCases reads every case below dir, sorted by name.
func readCases(dir string) ([]testCase, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var cases []testCase
	var errs []error
	for _, e := range entries {
		c, err := readCase(filepath.Join(dir, e.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("case %s: %w", e.Name(), err))
		}
		cases = append(cases, c)
	}
	return cases, errors.Join(errs...)
}

func readCase(dir string) (testCase, error) {
	c := testCase{Name: filepath.Base(dir)}
	first, err := readStep(dir, "objects.yaml")
	if err != nil {
		return c, err
	}
	first.Name = "start"
	c.Steps = append(c.Steps, first)
	if err := c.readHeader(filepath.Join(dir, "flows.txt")); err != nil {
		return c, err
	}
	for i := 1; ; i++ {
		name := fmt.Sprintf("step-%d", i)
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) {
			break
		}
		s, err := readStep(filepath.Join(dir, name), "apply.yaml")
		if err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
		s.Name = name
		c.Steps = append(c.Steps, s)
	}
	return c, c.checkFiles(dir)
}

// checkFiles refuses what would be passed over in silence.
func (c testCase) checkFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		known := []string{"objects.yaml", "flows.txt"}
		for _, s := range c.Steps[1:] {
			known = append(known, s.Name, s.Name+"/apply.yaml", s.Name+"/delete.txt", s.Name+"/flows.txt")
		}
		if !slices.Contains(known, filepath.ToSlash(rel)) {
			return fmt.Errorf("%s has no meaning here", rel)
		}
		return nil
	})
}

func readStep(dir, objects string) (step, error) {
	var s step
	var err error
	if s.Applies, err = readObjects(filepath.Join(dir, objects)); err != nil {
		return s, err
	}
	if s.Deletes, err = readDeletes(filepath.Join(dir, "delete.txt")); err != nil {
		return s, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "flows.txt"))
	if err != nil {
		return s, err
	}
	s.Flows, err = parseFlows(filepath.Base(dir)+"/flows.txt", string(data))
	return s, err
}

// readObjects reads a file of objects; no file means no objects. The values are
// not validated: malformed policies are cases too.
func readObjects(path string) (*manifest.Objects, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && filepath.Base(path) == "apply.yaml" {
		return &manifest.Objects{}, nil
	}
	if err != nil {
		return nil, err
	}
	return manifest.Decode(path, data)
}

func readDeletes(path string) ([]objectRef, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []objectRef
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kind, name, _ := strings.Cut(line, " ")
		ref := objectRef{Kind: kind, Name: name}
		if ns, n, ok := strings.Cut(name, "/"); ok {
			ref.Namespace, ref.Name = ns, n
		}
		if !slices.Contains([]string{"Pod", "Namespace", "NetworkPolicy"}, kind) || (kind == "Namespace") != (ref.Namespace == "") {
			return nil, fmt.Errorf("%s: %q is not like \"Pod shop/web\"", filepath.Base(path), line)
		}
		out = append(out, ref)
	}
	return out, nil
}

var headerLine = regexp.MustCompile(`^(about|covers|reports|absent): (.+)$`)

// readHeader reads the lines "key: value" of a case's first flows.txt.
func (c *testCase) readHeader(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		m := headerLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		switch m[1] {
		case "about":
			c.About = m[2]
		case "reports":
			c.Reports = strings.Fields(m[2])
		case "absent":
			c.Absent = strings.Fields(m[2])
		case "covers":
			for _, f := range strings.Fields(m[2]) {
				n, err := strconv.Atoi(f)
				if err != nil {
					return fmt.Errorf("covers: %q is no row", f)
				}
				c.Covers = append(c.Covers, n)
			}
		}
	}
	if c.About == "" || len(c.Covers) == 0 {
		return errors.New("flows.txt: about or covers is missing")
	}
	return nil
}
