package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"tidegate/adapters"
	"tidegate/internal/check"
)

// loader decodes configuration files into one value, each over what the files
// before it said: sections merge key by key, lists append. It walks the syntax
// tree itself instead of using the library's decoder, because that one stops at
// the first mistake and forgets where values stood.
//
// Mistakes are collected in errs. A path such as "bridges[1].servers[0]" names a
// value of the merged configuration.
type loader struct {
	files  []string         // in the order they were read
	places map[string]place // where the value of a path, or its key, stands
	zeros  map[string]bool  // paths of numbers that were given as 0
	faulty []string         // paths that have an error already
	errs   Errors
	broken bool // a file is no YAML, so the rest of it is unknown

	file    string              // being read
	anchors map[string]ast.Node // of file
}

var (
	textType  = reflect.TypeFor[encoding.TextUnmarshaler]()
	entryType = reflect.TypeFor[adapters.Entry]()
)

func newLoader() *loader {
	return &loader{places: map[string]place{}, zeros: map[string]bool{}}
}

// decode reads the file called name with the given contents into v, which must
// be a struct.
func (l *loader) decode(name string, contents []byte, v reflect.Value) {
	l.file, l.anchors = name, map[string]ast.Node{}
	l.files = append(l.files, name)
	if l.places[""].file == "" {
		l.places[""] = place{name, 1, 1}
	}
	contents = bytes.TrimPrefix(contents, []byte("\ufeff"))
	file, err := parser.ParseBytes(contents, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		l.broken = true
		l.syntaxError(err)
		return
	}
	read := false
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode:
		default:
			if read {
				l.fail("", body, "a second document starts here: remove the --- above it, one file is one document")
				return
			}
			read = true
			l.value("", body, v)
		}
	}
}

// syntaxError notes what the YAML parser could not read.
func (l *loader) syntaxError(err error) {
	e := Error{File: l.file, Line: 1, Col: 1, Text: err.Error()}
	var located yaml.Error
	if errors.As(err, &located) {
		e.Text = located.GetMessage()
		if tk := located.GetToken(); tk != nil {
			e.Line, e.Col = tk.Position.Line, tk.Position.Column
		}
	}
	text, _, _ := strings.Cut(e.Text, "\n")
	if strings.Contains(text, "character '\t'") {
		text = "a line starts with a tab: indent with spaces"
	}
	e.Text = "not YAML: " + text
	l.errs = append(l.errs, e)
}

// fail notes that the value n of path is wrong.
func (l *loader) fail(path string, n ast.Node, format string, args ...any) {
	l.failAt(path, l.at(n), format, args...)
}

func (l *loader) failAt(path string, at place, format string, args ...any) {
	l.faulty = append(l.faulty, path)
	l.note(path, at, fmt.Sprintf(format, args...))
}

// note adds the mistake text about path. Line breaks would break the promise
// of one line per mistake.
func (l *loader) note(path string, at place, text string) {
	text = strings.ReplaceAll(text, "\n", " ")
	if path != "" {
		text = path + ": " + text
	}
	l.errs = append(l.errs, Error{at.file, at.line, at.col, text})
}

// at returns where n starts.
func (l *loader) at(n ast.Node) place {
	tk := n.GetToken()
	switch n := n.(type) {
	case *ast.MappingNode:
		if tk = n.Start; len(n.Values) > 0 && !n.IsFlowStyle {
			tk = n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		tk = n.Key.GetToken()
	}
	return l.atToken(tk)
}

func (l *loader) atToken(tk *token.Token) place {
	if tk == nil || tk.Position == nil {
		return place{l.file, 1, 1}
	}
	return place{l.file, tk.Position.Line, tk.Position.Column}
}

// value decodes n, which stands at path, into v. An empty value is as good as
// an absent key, so that a section may have all its keys commented out.
func (l *loader) value(path string, n ast.Node, v reflect.Value) {
	n = l.resolve(path, n)
	if n == nil {
		return
	}
	if _, isNull := n.(*ast.NullNode); isNull {
		return
	}
	isText := reflect.PointerTo(v.Type()).Implements(textType)
	switch {
	case v.Type() == entryType:
		l.entry(path, n, v)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		l.value(path, n, v.Elem())
	case v.Kind() == reflect.Struct && !isText:
		l.section(path, n, v)
	case v.Kind() == reflect.Map && !isText:
		l.table(path, n, v)
	case v.Kind() == reflect.Slice && !isText:
		l.list(path, n, v)
	default:
		l.scalar(path, n, v)
	}
}

// resolve follows anchors and aliases. It returns nil after an error.
func (l *loader) resolve(path string, n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.AnchorNode:
		l.anchors[n.Name.String()] = n.Value
		return l.resolve(path, n.Value)
	case *ast.AliasNode:
		target, ok := l.anchors[n.Value.String()]
		if !ok {
			l.fail(path, n, "alias *%s has no anchor &%s above it in this file", n.Value, n.Value)
			return nil
		}
		if _, again := target.(*ast.AliasNode); again {
			l.fail(path, n, "alias *%s stands for another alias: name the anchor itself", n.Value)
			return nil
		}
		return l.resolve(path, target)
	case *ast.TagNode:
		l.fail(path, n, "tags such as %s are not used here: remove it", n.Start.Value)
		return nil
	}
	return n
}

// section decodes the map n into the struct v.
func (l *loader) section(path string, n ast.Node, v reflect.Value) {
	pairs, ok := l.pairs(path, n, v.Type())
	if !ok {
		return
	}
	keys := keysOf(v.Type())
	for _, pair := range pairs {
		k, known := find(keys, pair.name)
		if !known {
			l.unknown(path, pair, pairs, keys)
			continue
		}
		l.pair(path, pair, v.FieldByIndex(k.index))
	}
}

// pair decodes the value of pair, a key of the section path, into v. The place
// of a single value is its own, that of a list or section its key's.
func (l *loader) pair(path string, pair pair, v reflect.Value) {
	at := join(path, pair.name)
	l.places[at] = l.at(pair.key)
	if _, single := scalarOf(pair.value); single {
		l.places[at] = l.at(pair.value)
	}
	l.value(at, pair.value, v)
}

// unknown notes a key that its section does not have, with the name that was
// probably meant. If that one is missing, nothing more is said about it.
func (l *loader) unknown(path string, pair pair, given []pair, keys []key) {
	known := names(keys)
	hint := "known here: " + strings.Join(known, ", ")
	if name := nearest(pair.name, known); name != "" {
		hint = fmt.Sprintf("did you mean %q?", name)
		if !hasPair(given, name) {
			l.faulty = append(l.faulty, join(path, name))
		}
	} else if section := sectionWith(pair.name, reflect.TypeFor[Config](), ""); section != "" {
		hint = fmt.Sprintf("it belongs under %s", section)
	}
	l.note(path, l.at(pair.key), fmt.Sprintf("unknown key %q: %s", pair.name, hint))
}

// table decodes the map n into the Go map v, whose keys are text.
func (l *loader) table(path string, n ast.Node, v reflect.Value) {
	pairs, ok := l.pairs(path, n, v.Type())
	if !ok {
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, pair := range pairs {
		name := reflect.ValueOf(pair.name).Convert(v.Type().Key())
		element := reflect.New(v.Type().Elem()).Elem()
		if before := v.MapIndex(name); before.IsValid() {
			element.Set(before)
		}
		l.pair(path, pair, element)
		v.SetMapIndex(name, element)
	}
}

// list appends the elements of n to the slice v.
func (l *loader) list(path string, n ast.Node, v reflect.Value) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		l.mismatch(path, n, v.Type())
		return
	}
	for _, item := range sequence.Values {
		at := path + "[" + strconv.Itoa(v.Len()) + "]"
		element := reflect.New(v.Type().Elem()).Elem()
		l.places[at] = l.at(item)
		if _, isNull := item.(*ast.NullNode); isNull {
			l.fail(at, item, "is empty: write %s, or remove the -", wanted(element.Type()))
		}
		l.value(at, item, element)
		v.Set(reflect.Append(v, element)) // also if faulty, so that the next one keeps its number
	}
}

// entry decodes the adapter n into a new value of its kind.
func (l *loader) entry(path string, n ast.Node, v reflect.Value) {
	pairs, ok := l.pairs(path, n, v.Type())
	if !ok {
		return
	}
	for _, pair := range pairs {
		if pair.name != "kind" {
			continue
		}
		s, _ := scalarOf(pair.value)
		entry := newEntry(s.text)
		if entry == nil {
			l.fail(join(path, "kind"), pair.value, "%q is no kind%s", s.text, suggest(s.text, kindNames()))
			return
		}
		l.section(path, n, reflect.ValueOf(entry).Elem())
		v.Set(reflect.ValueOf(entry))
		return
	}
	l.fail(path, n, "kind is missing: known kinds are %s", strings.Join(kindNames(), ", "))
}

// suggest continues a sentence about the unknown name with what would be right.
func suggest(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": want one of " + strings.Join(known, ", ")
}

// scalar decodes the single value n into v.
func (l *loader) scalar(path string, n ast.Node, v reflect.Value) {
	s, ok := scalarOf(n)
	if !ok {
		l.mismatch(path, n, v.Type())
		return
	}
	text, err := expand(s.text)
	if err != nil {
		l.fail(path, n, "%s", err)
		return
	}
	if text != s.text {
		s = scalar{text: text}
	}
	if err := s.set(v); err != nil {
		l.fail(path, n, "%s", err)
		return
	}
	l.zeros[path] = isNumber(v) && v.IsZero() // false if a later file says so
}

// mismatch notes that n has another shape than t.
func (l *loader) mismatch(path string, n ast.Node, t reflect.Type) {
	if s, ok := scalarOf(n); ok {
		l.fail(path, n, "%s", s.wrong(t))
		return
	}
	is := "a section of keys"
	if _, isList := n.(*ast.SequenceNode); isList {
		is = "a list"
	}
	l.fail(path, n, "is %s, want %s", is, wanted(t))
}

// pair is one key of a map with its value.
type pair struct {
	name  string
	key   ast.Node
	value ast.Node
}

func hasPair(pairs []pair, name string) bool {
	return slices.ContainsFunc(pairs, func(p pair) bool { return p.name == name })
}

// pairs returns the keys of the map n, without those that are wrong in
// themselves. It fails if n, which should become a t, is no map.
func (l *loader) pairs(path string, n ast.Node, t reflect.Type) (list []pair, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		l.mismatch(path, n, t)
		return nil, false
	}
	lines := map[string]int{}
	for _, value := range values {
		name, ok := keyName(value.Key)
		if !ok {
			l.note(path, l.at(value.Key), fmt.Sprintf("%s is no key: write the keys out", value.Key))
			continue
		}
		if line := lines[name]; line > 0 {
			l.note(path, l.at(value.Key), fmt.Sprintf("key %q was given in line %d already: keep one of them", name, line))
			continue
		}
		lines[name] = l.at(value.Key).line
		list = append(list, pair{name, value.Key, value.Value})
	}
	return list, true
}

// keyName returns the text of a plain key. Merge keys (<<) and keys that are no
// single value have none.
func keyName(n ast.MapKeyNode) (string, bool) {
	if _, merge := n.(*ast.MergeKeyNode); merge {
		return "", false
	}
	s, ok := scalarOf(n)
	return s.text, ok
}

// complete fills in the defaults of c and notes what is wrong with the whole.
func (l *loader) complete(c *Config) {
	c.SetDefaults()
	l.checkZeros(c)
	l.problems(c.Check())
}

// checkZeros notes each 0 that the defaults replaced: whoever wrote it wanted
// something else, such as no limit.
func (l *loader) checkZeros(c *Config) {
	sections("", reflect.ValueOf(c), func(path string, section reflect.Value) {
		for _, k := range keysOf(section.Type()) {
			at, v := join(path, k.name), reflect.Indirect(section.FieldByIndex(k.index))
			if l.zeros[at] && !v.IsZero() {
				l.failAt(at, l.placeOf(at), "0 is not possible: leave the key out for the default, %v", v)
			}
		}
	})
}

// problems notes the mistakes that the sections found in their values, except
// those that follow from an error noted before.
func (l *loader) problems(found check.Problems) {
	for _, p := range found {
		if !l.isFaulty(p.Path) {
			l.note(p.Path, l.placeOf(p.Path), p.Text)
		}
	}
}

// isFaulty reports whether path, or a section that it stands in, has an error.
func (l *loader) isFaulty(path string) bool {
	for _, f := range l.faulty {
		if rest, ok := strings.CutPrefix(path, f); ok && (f == "" || rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// placeOf returns where the value of path stands or, when it is absent, the
// innermost section around it that is there.
func (l *loader) placeOf(path string) place {
	for path != "" {
		if at, ok := l.places[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return l.places[""]
}

// join appends a key to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
