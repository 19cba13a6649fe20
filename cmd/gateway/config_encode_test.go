package main

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// encodeYAML writes c as the command config does.
func encodeYAML(t *testing.T, c *Config) string {
	t.Helper()
	text, err := yaml.MarshalWithOptions(effective(c), yaml.IndentSequence(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEffectiveConfigurationReadsBackAsItself(t *testing.T) {
	c := mustLoad(t, map[string]string{
		"pass": "geheim",
		"c.yaml": `
gateway: {name: "0017", log: {level: warn}, data_dir: "a: b # c"}
broker: {queue: {max_memory: 12345}}
bridges:
  - {name: one, servers: [tcp://h], username: "true", password: geheim, out: [{topics: ["#"], qos: 0}]}
  - {name: two, servers: [tcp://h], username: "$${x}", password_file: pass, out: [{topics: [a, b/+], prefix: " x "}]}
adapters:
  - {name: a, kind: serial, device: /dev/ttyUSB0, decode: {kind: csv, fields: [t]}, fields: {t: {scale: 0.1}, "a.b": {unit: "°C", min: -40, max: 1e3}}}
`,
	})
	text := encodeYAML(t, c)
	if strings.Contains(text, "geheim") || strings.Count(text, mask) != 1 || !strings.Contains(text, "/pass\n") {
		t.Errorf("want one masked password and the path of one password_file in\n%s", text)
	}
	again := mustLoad(t, map[string]string{"c.yaml": text})
	if encodeYAML(t, again) != text {
		t.Errorf("it reads back as\n%s\nnot as\n%s", encodeYAML(t, again), text)
	}
}
