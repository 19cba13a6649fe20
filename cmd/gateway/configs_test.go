package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"tidegate/adapters/serial"
)

// configFilesInRepo lists the samples in configs/.
func configFilesInRepo(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("found %q in configs/, %v", files, err)
	}
	return files
}

func TestSampleConfigurationsAreValid(t *testing.T) {
	for _, file := range configFilesInRepo(t) {
		if _, err := Load(file); err != nil {
			t.Error(err)
		}
	}
}

const reference = "../../configs/tidegate.yaml"

func readReference(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the reference sets is the built-in default, but for the folder.
func TestReferenceShowsTheDefaults(t *testing.T) {
	c := mustLoad(t, map[string]string{"c.yaml": readReference(t)})
	want := Default()
	want.Gateway.DataDir = "/var/lib/tidegate"
	if encodeYAML(t, c) != encodeYAML(t, want) {
		t.Errorf("got\n%s\nwant\n%s", encodeYAML(t, c), encodeYAML(t, want))
	}
}

// What the reference has commented out is valid, too.
func TestReferenceIsValidWithEverythingInUse(t *testing.T) {
	text := regexp.MustCompile(`(?m)^( *)#([^#])`).ReplaceAllString(readReference(t), "$1$2")
	c := mustLoad(t, map[string]string{"c.yaml": text, "cloud.pass": "x", "passwd": "", "acl": ""})
	if len(c.Bridges) != 1 || len(c.Adapters) != 1 || c.Gateway.Name != "pump-house" {
		t.Fatalf("got %+v", c)
	}
}

// Every key that can be given stands in the reference.
func TestReferenceIsComplete(t *testing.T) {
	text := readReference(t)
	var visit func(path string, v reflect.Type)
	visit = func(path string, v reflect.Type) {
		switch {
		case v == entryType:
			for _, k := range kinds {
				visit(path, reflect.TypeOf(k.new()).Elem())
			}
		case v.Kind() == reflect.Slice, v.Kind() == reflect.Map, v.Kind() == reflect.Pointer:
			visit(path, v.Elem())
		case v.Kind() == reflect.Struct:
			for _, k := range keysOf(v) {
				if !strings.Contains(text, k.name+":") {
					t.Errorf("%s is missing", join(path, k.name))
				}
				visit(join(path, k.name), v.FieldByIndex(k.index).Type)
			}
		}
	}
	visit("", reflect.TypeFor[Config]())
}

// The samples that adapters carry are valid entries of the list.
func TestAdapterSamplesAreValid(t *testing.T) {
	for kind, sample := range map[string]string{serial.Kind: serial.Sample} {
		c := mustLoad(t, map[string]string{"c.yaml": "adapters:\n" + sample})
		for _, a := range c.Adapters {
			if a.Common().Kind != kind {
				t.Errorf("the sample of %s has the kind %q", kind, a.Common().Kind)
			}
		}
	}
}

func TestReadmeShowsTheSample(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile("../../configs/pi-usb-serial.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(readme, sample) {
		t.Error("README.md does not show configs/pi-usb-serial.yaml as it is: copy it there")
	}
}
