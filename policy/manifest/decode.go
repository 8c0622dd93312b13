package manifest

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	goyaml "go.yaml.in/yaml/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// maxListDepth is how deep a List can stand in a List. kubectl writes one level.
const maxListDepth = 4

// Decode reads one file of YAML documents or of JSON; the name is only for messages. Decoding is strict: fields that are
// unknown, given twice or of the wrong type are errors. Lists are read as what they list. On an error, the objects of
// the documents that are right are returned along with it. The result is never nil.
func Decode(file string, data []byte) (*Objects, error) {
	o := &Objects{Origins: map[string]Origin{}, made: map[string]bool{}}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if !utf8.Valid(data) {
		return o, fmt.Errorf("%s: the text is not UTF-8", file)
	}
	var errs []error
	for i, doc := range split(data) {
		origin := Origin{File: file, Document: i + 1, Line: doc.line}
		text, err := toJSON(doc)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", origin, err))
			continue
		}
		errs = append(errs, o.decode(text, origin, typeMeta{}, 0))
	}
	errs = append(errs, o.makePods())
	o.makeNamespaces()
	return o, errors.Join(errs...)
}

// toJSON turns a document into JSON. What is JSON already stays as it is: not every JSON text is YAML.
func toJSON(doc document) ([]byte, error) {
	if text := bytes.TrimSpace(doc.text); len(text) > 0 && text[0] == '{' && stdjson.Valid(text) {
		return text, nil
	}
	text, err := oneDocument(doc.text)
	if err == nil {
		return text, nil
	}
	// The parser counts lines from the beginning of the document; people count from the beginning of the file.
	padded := append(bytes.Repeat([]byte("\n"), doc.line-1), doc.text...)
	if _, again := oneDocument(padded); again != nil {
		err = again
	}
	return nil, errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// oneDocument turns YAML into JSON. Something behind the end of the document is an error; the plain parser stops there
// and says nothing, as for "{kind: Pod} {kind: NetworkPolicy}".
func oneDocument(text []byte) ([]byte, error) {
	out, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	parser := goyaml.NewDecoder(bytes.NewReader(text))
	var ignored any
	if err := parser.Decode(&ignored); err != nil {
		return nil, err
	}
	switch err := parser.Decode(&ignored); {
	case err == nil:
		return nil, errors.New("yaml: there is another document behind this one")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return out, nil
}

// typeMeta is what every object begins with.
type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// head is the part of an object that says what it is.
type head struct {
	typeMeta
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// name is the object's name for messages, as far as it has one.
func (h head) name() string {
	return strings.TrimSpace(h.Kind + " " + strings.TrimPrefix(h.Metadata.Namespace+"/"+h.Metadata.Name, "/"))
}

// at is where the object stands and what it is, for the beginning of a message.
func (h head) at(origin Origin) string {
	if h.name() == "" {
		return origin.String()
	}
	return origin.String() + ": " + h.name()
}

// decode takes up one object or the items of a List. The items of a typed list need not repeat what they are.
func (o *Objects) decode(text []byte, origin Origin, implied typeMeta, depth int) error {
	if len(text) == 0 || text[0] != '{' {
		return fmt.Errorf("%s: not a Kubernetes object", origin)
	}
	h := head{typeMeta: implied}
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &h); err != nil {
		return located(origin, h, text, &head{}, err)
	}
	switch {
	case h.Kind == "":
		return fmt.Errorf("%s: kind: Required value", h.at(origin))
	case h.APIVersion == "":
		return fmt.Errorf("%s: apiVersion: Required value", h.at(origin))
	}
	if item, ok := listOf(h.typeMeta); ok {
		return o.decodeList(text, origin, h, item, depth)
	}
	k, err := kindOf(h.typeMeta)
	if err != nil {
		return fmt.Errorf("%s: %w", h.at(origin), err)
	}
	if k.new == nil {
		return nil
	}
	into := k.new()
	if err := strict(text, into); err != nil {
		return located(origin, h, text, k.new(), err)
	}
	obj := k.object(into)
	if obj.GetName() == "" {
		return fmt.Errorf("%s: metadata.name: Required value", h.at(origin))
	}
	if k.namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(metav1.NamespaceDefault)
	}
	return o.add(obj, origin)
}

// decodeList takes up the items of a List.
func (o *Objects) decodeList(text []byte, origin Origin, h head, item typeMeta, depth int) error {
	if depth == maxListDepth {
		return fmt.Errorf("%s: lists stand in lists more than %d deep", origin, maxListDepth)
	}
	var list struct {
		typeMeta
		Metadata metav1.ListMeta      `json:"metadata"`
		Items    []stdjson.RawMessage `json:"items"`
	}
	if err := strict(text, &list); err != nil {
		return located(origin, h, text, &list, err)
	}
	var errs []error
	for i, raw := range list.Items {
		place := origin
		place.Item = strings.TrimPrefix(fmt.Sprintf("%s.items[%d]", origin.Item, i), ".")
		errs = append(errs, o.decode(bytes.TrimSpace(raw), place, item, depth+1))
	}
	return errors.Join(errs...)
}

// strict decodes one object and reports the fields that are unknown or given twice.
func strict(text []byte, into any) error {
	complaints, err := json.UnmarshalStrict(text, into)
	if err != nil {
		return err
	}
	return errors.Join(complaints...)
}

// located says where an object stands, what it is, and which of its fields are wrong: one line for each field.
func located(origin Origin, h head, text []byte, into any, err error) error {
	prefix := h.at(origin)
	var lines []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			lines = append(lines, fmt.Errorf("%s: %w", prefix, e))
		}
		return errors.Join(lines...)
	}
	var tree any
	if json.UnmarshalCaseSensitivePreserveInts(text, &tree) == nil {
		path, cause := faultyField(tree, into)
		if path != "" {
			prefix, err = prefix+": "+path, cause
		}
	}
	var wrongType *stdjson.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return fmt.Errorf("%s: is a %s, must be a %s", prefix, wrongType.Value, wrongType.Type)
	}
	return fmt.Errorf("%s: %w", prefix, err)
}

// faultyField finds the field on which decoding stops, and why. The JSON package names it without indices, and not at all
// where a type decodes itself. So we go down the tree, each time to the first branch that fails to decode even if it is
// alone.
func faultyField(tree, into any) (path string, cause error) {
	decode := func(v any) error {
		text, err := stdjson.Marshal(v)
		if err != nil {
			return nil // It came out of JSON, so this is not the fault we look for.
		}
		return json.UnmarshalCaseSensitivePreserveInts(text, into)
	}
	wrap := func(v any) any { return v }
	for {
		next, step, found := firstFaulty(tree, func(v any) bool { return decode(wrap(v)) != nil })
		if !found {
			return strings.TrimPrefix(path, "."), cause
		}
		outer, node := wrap, tree
		wrap = func(v any) any { return outer(alone(node, step, v)) }
		tree = next
		path += step.text
		cause = decode(wrap(tree))
	}
}

// branch is the way from a node to one of its children.
type branch struct {
	key  string
	text string // as it stands in a path: ".key" or "[3]"
}

// firstFaulty is the first child of a node for which, when it is the only child, the node fails. There is none if the
// node fails even without children: then the node itself has the wrong type.
func firstFaulty(node any, fails func(any) bool) (child any, step branch, found bool) {
	switch node := node.(type) {
	case map[string]any:
		if fails(map[string]any{}) {
			return nil, branch{}, false
		}
		keys := make([]string, 0, len(node))
		for k := range node {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			step := branch{key: k, text: "." + k}
			if fails(alone(node, step, node[k])) {
				return node[k], step, true
			}
		}
	case []any:
		if fails([]any{}) {
			return nil, branch{}, false
		}
		for i, v := range node {
			step := branch{text: fmt.Sprintf("[%d]", i)}
			if fails(alone(node, step, v)) {
				return v, step, true
			}
		}
	}
	return nil, branch{}, false
}

// alone is a node of the same kind that has only one child.
func alone(node any, step branch, child any) any {
	if _, isMap := node.(map[string]any); isMap {
		return map[string]any{step.key: child}
	}
	return []any{child}
}
