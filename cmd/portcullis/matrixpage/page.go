package matrixpage

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

//go:embed page.html page.css *.js
var assets embed.FS

// scripts are the parts of the script, in order.
var scripts = []string{"ports.js", "model.js", "grid.js", "explain.js", "main.js"}

// Page is what is shown: a matrix or a difference.
type Page struct {
	Source string // where the objects come from
	Matrix *matrix.Matrix
	Diff   *matrix.Diff
	Ports  []string // ports to look at, as "tcp/5432"
	Notes  []string // warnings
}

// Write writes the page.
func Write(w io.Writer, p Page) error {
	data, err := json.Marshal(newPayload(p))
	if err != nil {
		return fmt.Errorf("encode the data: %w", err)
	}
	page, err := assets.ReadFile("page.html")
	if err != nil {
		return err
	}
	style, err := assets.ReadFile("page.css")
	if err != nil {
		return err
	}
	script := "'use strict';\n"
	for _, name := range scripts {
		part, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		script += string(part)
	}
	// The data comes last, so that nothing in it can look like a place to be filled in.
	before, after, _ := strings.Cut(strings.NewReplacer(
		"{{policy}}", "default-src 'none'; base-uri 'none'; form-action 'none'; style-src "+hash(string(style))+"; script-src "+hash(script),
		"{{style}}", string(style),
		"{{script}}", script,
	).Replace(string(page)), "{{data}}")
	for _, part := range []string{before, string(data), after} {
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
	}
	return nil
}

// hash is how a Content-Security-Policy names an inline element.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
