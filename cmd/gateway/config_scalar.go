package main

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// scalar is one single value of a configuration file.
type scalar struct {
	text   string // without quotes, ${ENV} replaced
	isBool bool
	quoted bool // meant as text, unless text came out of the environment
}

// scalarOf returns the scalar that n is. ok is false for lists and maps.
func scalarOf(n ast.Node) (s scalar, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return scalar{text: n.Value, quoted: n.Token.Type != token.StringType}, true
	case *ast.LiteralNode:
		return scalar{text: n.Value.Value, quoted: true}, true
	case *ast.BoolNode:
		return scalar{text: n.Token.Value, isBool: true}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return scalar{text: n.GetToken().Value}, true
	}
	return scalar{}, false
}

// set puts s into v. Its error says what is wrong with the value.
func (s scalar) set(v reflect.Value) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s.text))
	}
	switch {
	case v.Kind() == reflect.String:
		return s.setString(v)
	case v.Kind() == reflect.Bool:
		return s.setBool(v)
	case v.CanInt():
		return s.setInt(v)
	case v.CanUint():
		return s.setUint(v)
	case v.CanFloat():
		return s.setFloat(v)
	}
	return s.wrong(v.Type())
}

func (s scalar) setString(v reflect.Value) error {
	if s.isBool {
		return fmt.Errorf("%s is a truth value, want text: write %q in quotes", s.text, s.text)
	}
	v.SetString(s.text)
	return nil
}

func (s scalar) setBool(v reflect.Value) error {
	if s.quoted || s.text != "true" && s.text != "false" {
		return s.wrong(v.Type())
	}
	v.SetBool(s.text == "true")
	return nil
}

func (s scalar) setInt(v reflect.Value) error {
	n, err := strconv.ParseInt(s.text, 0, 64)
	switch {
	case s.quoted, errors.Is(err, strconv.ErrSyntax):
		return s.wrong(v.Type())
	case err != nil, v.OverflowInt(n):
		return fmt.Errorf("%s is out of range", s.text)
	}
	v.SetInt(n)
	return nil
}

func (s scalar) setUint(v reflect.Value) error {
	n, err := strconv.ParseUint(s.text, 0, 64)
	switch {
	case s.quoted, errors.Is(err, strconv.ErrSyntax):
		return s.wrong(v.Type())
	case err != nil, v.OverflowUint(n):
		return fmt.Errorf("%s is out of range", s.text)
	}
	v.SetUint(n)
	return nil
}

func (s scalar) setFloat(v reflect.Value) error {
	f, err := strconv.ParseFloat(s.text, 64)
	if s.quoted || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return s.wrong(v.Type())
	}
	v.SetFloat(f)
	return nil
}

// wrong is the error for a value that cannot become a t.
func (s scalar) wrong(t reflect.Type) error {
	if t.Kind() == reflect.Slice {
		return fmt.Errorf("%q is a single value, want a list: write [%s]", s.text, s.text)
	}
	if isNumber(reflect.Zero(t)) && s.quoted && isNumeral(s.text) {
		return fmt.Errorf("%q is text, want %s: remove the quotes", s.text, wanted(t))
	}
	return fmt.Errorf("%q is not %s", s.text, wanted(t))
}

// isNumber reports whether v is a number, sizes and durations included.
func isNumber(v reflect.Value) bool { return v.CanInt() || v.CanUint() || v.CanFloat() }

func isNumeral(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// wanted says in words what a value of type t looks like in YAML.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(textType) {
		return "a single value"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Struct:
		return fmt.Sprintf("a section with keys such as %s:", keysOf(t)[0].name)
	case reflect.Map, reflect.Interface:
		return "a section of keys"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 up"
	case reflect.String:
		return "text"
	default:
		return "a whole number"
	}
}

// expand replaces each ${NAME} of s by that environment variable, and $${ by
// ${. A variable that is not set is an error: an empty password or host would
// only fail later, far from here.
func expand(s string) (string, error) {
	var out strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			out.WriteString(s)
			return out.String(), nil
		}
		if i > 0 && s[i-1] == '$' {
			out.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		out.WriteString(s[:i])
		name, rest, closed := strings.Cut(s[i+2:], "}")
		if !closed || !isVariable(name) {
			return "", fmt.Errorf("%q starts no environment variable: write ${NAME}, or $${ for a plain ${", s[i:])
		}
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set: set it, or write $${%s} if the text is meant literally", name, name)
		}
		out.WriteString(value)
		s = rest
	}
}

// unexpand is the inverse of expand for a text without variables.
func unexpand(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// isVariable reports whether name can be an environment variable of a shell.
func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
