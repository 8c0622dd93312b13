package cni

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// What may stand in the names of a request. The lengths are those of the API server
// and the kernel; the container runtime's have no bound in the CNI specification.
const (
	maxContainerID = 255
	maxInterface   = 15 // IFNAMSIZ without its final NUL
	maxNamespace   = 63 // a DNS label
	maxName        = 253
	maxUID         = 128
)

// checkContainerID wants a letter or digit, then those, "_", "." and "-".
func checkContainerID(s string) error {
	if err := checkLength(s, maxContainerID); err != nil {
		return err
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && (i == 0 || c != '_' && c != '.' && c != '-') {
			return fmt.Errorf("%q: a letter or digit, then letters, digits, '_', '.' and '-'", s)
		}
	}
	return nil
}

// checkInterface wants what the kernel takes as the name of an interface, in
// printable ASCII. '/' and ':' and spaces are refused by the kernel, too.
func checkInterface(s string) error {
	if err := checkLength(s, maxInterface); err != nil {
		return err
	}
	if s == "." || s == ".." {
		return fmt.Errorf("%q is no name of an interface", s)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '/' || c == ':' || c == '"' || c == '\\' {
			return fmt.Errorf("%q is no name of an interface", s)
		}
	}
	return nil
}

// checkNamespace wants a DNS label, as the API server does.
func checkNamespace(s string) error {
	if err := checkLength(s, maxNamespace); err != nil {
		return err
	}
	return checkLabel(s)
}

// checkName wants a DNS subdomain, as the API server does for pods.
func checkName(s string) error {
	if err := checkLength(s, maxName); err != nil {
		return err
	}
	for from, i := 0, 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if checkLabel(s[from:i]) != nil {
				return fmt.Errorf("%q: lower case letters, digits, '-' and '.', with a letter or digit at both ends of each part", s)
			}
			from = i + 1
		}
	}
	return nil
}

func checkLabel(s string) error {
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if c := s[i]; !lowerOrDigit(c) && (c != '-' || !inner) {
			return fmt.Errorf("%q: lower case letters, digits and '-', with a letter or digit at both ends", s)
		}
	}
	if s == "" {
		return errors.New("empty")
	}
	return nil
}

// checkUID wants what both UUIDs and the hashes of static pods are.
func checkUID(s string) error {
	if err := checkLength(s, maxUID); err != nil {
		return err
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '-' {
			return fmt.Errorf("%q: letters, digits and '-'", s)
		}
	}
	return nil
}

func checkLength(s string, most int) error {
	if s == "" {
		return errors.New("empty")
	}
	if len(s) > most {
		return fmt.Errorf("%d bytes, more than %d", len(s), most)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%q is not UTF-8", s)
	}
	return nil
}

func lowerOrDigit(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
func alphanumeric(c byte) bool { return lowerOrDigit(c) || c >= 'A' && c <= 'Z' }
