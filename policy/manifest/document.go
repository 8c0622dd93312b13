package manifest

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// document is one YAML document of a file, without the marker in front of it.
type document struct {
	text []byte
	line int // of the file, from 1
}

// split cuts a file into its YAML documents and leaves out the empty ones. It does not ask the YAML parser, which reads
// the first document and says nothing of the others. In YAML no scalar can have a line that begins with a marker, so
// looking at lines is enough; but the lines have to end wherever the parser ends them.
func split(data []byte) []document {
	var docs []document
	start := document{line: 1}
	line := 1
	flush := func(text []byte) {
		if !blank(text) {
			docs = append(docs, document{text, start.line})
		}
	}
	begin := 0
	for pos := 0; pos < len(data); line++ {
		text, size := nextLine(data[pos:])
		if marker(text, "---") || marker(text, "...") {
			flush(data[begin:pos])
			begin, start.line = pos+len("---"), line
		}
		pos += size
	}
	flush(data[begin:])
	return docs
}

// nextLine is the first line of a text, and its size with its line break: LF, CR LF, CR, or one of the breaks that only
// YAML 1.1 knows (NEL, LS, PS).
func nextLine(data []byte) (line []byte, size int) {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch r {
		case '\r':
			if bytes.HasPrefix(data[i:], []byte("\r\n")) {
				n = 2
			}
			return data[:i], i + n
		case '\n', '\u0085', '\u2028', '\u2029':
			return data[:i], i + n
		}
		i += n
	}
	return data, len(data)
}

// marker tells whether a line begins or ends a document: the three characters and then nothing or a blank.
func marker(line []byte, mark string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(mark))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t')
}

// blank tells whether a document says nothing: only comments, blank lines, and directives of a following document.
func blank(text []byte) bool {
	for len(text) > 0 {
		line, size := nextLine(text)
		text = text[size:]
		s := strings.TrimSpace(string(line))
		if s != "" && s[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}
