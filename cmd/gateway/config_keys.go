package main

import (
	"reflect"
	"slices"
	"strings"
)

// key is one key that a section of the configuration may have.
type key struct {
	name  string
	index []int // of the struct field, for [reflect.Value.FieldByIndex]
}

// keysOf lists the keys of the struct t in the order of its fields. Embedded
// structs with `yaml:",inline"` lend theirs.
func keysOf(t reflect.Type) []key {
	var keys []key
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case !field.IsExported() || name == "-":
		case strings.Contains(options, "inline"):
			for _, k := range keysOf(field.Type) {
				keys = append(keys, key{k.name, append([]int{i}, k.index...)})
			}
		case name == "":
			keys = append(keys, key{strings.ToLower(field.Name), []int{i}})
		default:
			keys = append(keys, key{name, []int{i}})
		}
	}
	return keys
}

// find returns the key called name.
func find(keys []key, name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// names returns the names of keys, sorted.
func names(keys []key) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.name
	}
	slices.Sort(list)
	return list
}

// sectionWith returns the path of a section that has the key name, or "". It
// finds keys that were indented too little or too much.
func sectionWith(name string, t reflect.Type, path string) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return sectionWith(name, t.Elem(), path)
	case reflect.Struct:
	default:
		return ""
	}
	keys := keysOf(t)
	if _, ok := find(keys, name); ok && path != "" {
		return path
	}
	for _, k := range keys {
		if at := sectionWith(name, t.FieldByIndex(k.index).Type, join(path, k.name)); at != "" {
			return at
		}
	}
	return ""
}

// nearest returns the candidate that name was probably meant to be, or "".
func nearest(name string, candidates []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := distance(fold(name), fold(c)); d < least {
			best, least = c, d
		}
	}
	if least >= len(name) {
		return ""
	}
	return best
}

// fold makes dataDir, data-dir and data_dir neighbours.
func fold(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// distance is the number of characters to insert, delete, replace or swap with
// their neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	row, above := make([]int, len(b)+1), []int(nil)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before := above
		above, row = row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
