package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// mask is shown instead of a secret.
const mask = "********"

// fileSuffix marks the key that names a file with the value of another key:
// password_file stands for password.
const fileSuffix = "_file"

// isSecret reports whether the key called name holds a secret: one that may as
// well come from a file.
func isSecret(keys []key, name string) bool {
	_, ok := find(keys, name+fileSuffix)
	return ok
}

// readSecrets fills each key that has a *_file sibling from that file. Relative
// names start at the folder of the configuration file that has them.
func (l *loader) readSecrets(c *Config) {
	sections("", reflect.ValueOf(c), func(path string, section reflect.Value) {
		keys := keysOf(section.Type())
		for _, k := range keys {
			if !isSecret(keys, k.name) {
				continue
			}
			fileKey, _ := find(keys, k.name+fileSuffix)
			l.readSecret(join(path, fileKey.name), section.FieldByIndex(k.index), section.FieldByIndex(fileKey.index))
		}
	})
}

// readSecret puts the contents of the file that path names into secret.
func (l *loader) readSecret(path string, secret, file reflect.Value) {
	name := file.String()
	if name == "" || l.isFaulty(path) {
		return
	}
	at := l.placeOf(path)
	if secret.String() != "" {
		plain := strings.TrimSuffix(path[strings.LastIndex(path, ".")+1:], fileSuffix)
		l.failAt(path, at, "%s is given as well: keep one of the two", plain)
		return
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(at.file), name)
	}
	contents, err := readSecretFile(name)
	text := strings.TrimSuffix(strings.TrimSuffix(string(contents), "\n"), "\r")
	switch {
	case err != nil:
		l.failAt(path, at, "%s: %s", name, readProblem(err))
	case text == "":
		l.failAt(path, at, "%s is empty: write the secret into its first line", name)
	default:
		secret.SetString(text)
		file.SetString(name)
	}
}

// maxSecret bounds what is read of a file that holds no secret, such as a disk.
const maxSecret = 64 << 10

func readSecretFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	contents, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err == nil && len(contents) > maxSecret {
		err = errors.New("has more than 64KiB, so it is no secret: name another file")
	}
	return contents, err
}

// sections calls fn for v and every struct inside it that has keys of its own,
// with its path.
func sections(path string, v reflect.Value, fn func(path string, section reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			sections(path, v.Elem(), fn)
		}
	case reflect.Slice:
		for i := range v.Len() {
			sections(path+"["+strconv.Itoa(i)+"]", v.Index(i), fn)
		}
	case reflect.Struct:
		fn(path, v)
		for _, k := range keysOf(v.Type()) {
			sections(join(path, k.name), v.FieldByIndex(k.index), fn)
		}
	}
}
