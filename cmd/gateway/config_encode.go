package main

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// effective returns c as nested maps in the order of the reference, with secrets
// masked. [Load] reads what becomes of it in YAML as c again, but for them. Keys
// without a value (no list entries, empty text) are left out.
func effective(c *Config) yaml.MapSlice {
	return encodeSection(reflect.ValueOf(c).Elem())
}

func encodeSection(v reflect.Value) yaml.MapSlice {
	section := yaml.MapSlice{}
	keys := keysOf(v.Type())
	for _, k := range keys {
		field := v.FieldByIndex(k.index)
		if isEmpty(field) {
			continue
		}
		value := encode(field)
		if isSecret(keys, k.name) {
			if fileKey, _ := find(keys, k.name+fileSuffix); !isEmpty(v.FieldByIndex(fileKey.index)) {
				continue // the file's name is shown
			}
			value = mask
		}
		section = append(section, yaml.MapItem{Key: k.name, Value: value})
	}
	return section
}

// isEmpty reports whether v is a value that no key would be written for. Zero
// numbers are values.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return v.IsNil()
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return false
}

// encode returns v as what the YAML library writes: text, numbers, truth
// values, slices and ordered maps.
func encode(v reflect.Value) any {
	if t, ok := v.Interface().(encoding.TextMarshaler); ok && v.Kind() != reflect.Interface {
		return encodeText(t)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return encode(v.Elem())
	case reflect.Struct:
		return encodeSection(v)
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = encode(v.Index(i))
		}
		return list
	case reflect.Map:
		return encodeTable(v)
	case reflect.String:
		return unexpand(v.String())
	}
	return v.Interface()
}

// encodeText writes t as it is written by hand: a number without quotes.
func encodeText(t encoding.TextMarshaler) any {
	text, err := t.MarshalText()
	if err != nil {
		return fmt.Sprint(t)
	}
	if n, err := strconv.Atoi(string(text)); err == nil {
		return n
	}
	return unexpand(string(text))
}

// encodeTable writes the map v in the order of its keys.
func encodeTable(v reflect.Value) yaml.MapSlice {
	names := v.MapKeys()
	slices.SortFunc(names, func(a, b reflect.Value) int {
		return strings.Compare(a.String(), b.String())
	})
	table := yaml.MapSlice{}
	for _, name := range names {
		table = append(table, yaml.MapItem{Key: name.String(), Value: encode(v.MapIndex(name))})
	}
	return table
}
