package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The parts of CycloneDX 1.6 that are in use.
type (
	bom struct {
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		Purl       string     `json:"purl,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// describe returns the SBOM of an image with these binaries: the modules that the linker
// recorded in them, and Go's standard library.
func describe(version string, binaries []file) ([]byte, error) {
	image := component{Type: "container", Ref: "portcullis-image", Name: "portcullis", Version: version}
	out := bom{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{image}}
	libraries := map[string]component{} // by reference
	contains := dependency{Ref: image.Ref}
	var uses []dependency
	for _, b := range binaries {
		info, err := buildinfo.Read(bytes.NewReader(b.data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.path, err)
		}
		sum := sha256.Sum256(b.data)
		out.Components = append(out.Components, component{
			Type: "application", Ref: "/" + b.path, Name: path.Base(b.path), Version: version,
			Hashes:     []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
			Properties: []property{{"go:package", info.Path}},
		})
		contains.DependsOn = append(contains.DependsOn, "/"+b.path)
		use := dependency{Ref: "/" + b.path}
		for _, l := range modules(info) {
			libraries[l.Ref] = l
			use.DependsOn = append(use.DependsOn, l.Ref)
		}
		slices.Sort(use.DependsOn)
		uses = append(uses, use)
	}
	out.Components = append(out.Components, slices.SortedFunc(maps.Values(libraries), func(a, b component) int {
		return cmp.Compare(a.Ref, b.Ref)
	})...)
	out.Dependencies = append([]dependency{contains}, uses...)
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}

// modules are the modules that a binary is made of, its own one left out.
func modules(info *buildinfo.BuildInfo) []component {
	// A toolchain may add words behind a space: experiments.
	release, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	out := []component{library("stdlib", release, "")}
	for _, m := range info.Deps {
		for m.Replace != nil {
			m = m.Replace
		}
		out = append(out, library(m.Path, m.Version, m.Sum))
	}
	return out
}

// library is a module of Go. Its sum is that of go.sum, which is no hash of a file.
func library(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + url.QueryEscape(version)
	c := component{Type: "library", Ref: purl, Name: path, Version: version, Purl: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
