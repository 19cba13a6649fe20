package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/internal/units"
)

// writeFiles writes files, by name, into a new folder and returns it.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loadFiles loads c.yaml of files. Errors name files as in files.
func loadFiles(t *testing.T, files map[string]string) (*Config, []string) {
	t.Helper()
	dir := writeFiles(t, files)
	c, err := Load(filepath.Join(dir, "c.yaml"))
	if err == nil {
		return c, nil
	}
	return c, strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
}

// mustLoad loads c.yaml of files, which must be without a mistake.
func mustLoad(t *testing.T, files map[string]string) *Config {
	t.Helper()
	c, errs := loadFiles(t, files)
	if errs != nil {
		t.Fatalf("unexpected:\n%s", strings.Join(errs, "\n"))
	}
	return c
}

// equalLines compares what was said with what should be, line by line.
func equalLines(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("too much: %s", got[i])
		case got[i] != want[i]:
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

const (
	goodBridge  = "bridges:\n  - {name: cloud, servers: ['tcp://h:1883'], out: [{topics: [a]}]}\n"
	goodAdapter = "  - {name: a, kind: serial, device: /dev/ttyUSB0, decode: {kind: text}}\n"
)

// One mistake each, with what is said about it.
var mistakes = []struct {
	name string
	yaml string
	want []string
}{
	{
		"an unknown key close to a known one",
		"gateway:\n  data_dri: /x\n",
		[]string{`c.yaml:2:3: gateway: unknown key "data_dri": did you mean "data_dir"?`},
	},
	{
		"an unknown key in another style",
		"gateway: {memoryLimit: 64MiB}\n",
		[]string{`c.yaml:1:11: gateway: unknown key "memoryLimit": did you mean "memory_limit"?`},
	},
	{
		"an unknown key like nothing known",
		"store:\n  compression: zstd\n",
		[]string{`c.yaml:2:3: store: unknown key "compression": known here: commit_interval, compact_interval, flash_budget, max_size, min_free, online_delay, segment_size`},
	},
	{
		"a key that was not indented",
		"broker:\nmax_inflight: 3\n",
		[]string{`c.yaml:2:1: unknown key "max_inflight": it belongs under broker.limits`},
	},
	{
		"a key given twice",
		"gateway:\n  name: a\n  log: {}\n  name: b\n",
		[]string{`c.yaml:4:3: gateway: key "name" was given in line 2 already: keep one of them`},
	},
	{
		"text for a number",
		"broker:\n  limits:\n    max_connections: many\n",
		[]string{`c.yaml:3:22: broker.limits.max_connections: "many" is not a whole number`},
	},
	{
		"a number in quotes",
		"broker: {limits: {max_connections: '7'}}\n",
		[]string{`c.yaml:1:36: broker.limits.max_connections: "7" is text, want a whole number: remove the quotes`},
	},
	{
		"a number that its type cannot hold",
		strings.Replace(goodBridge, "topics: [a]", "topics: [a], qos: 300", 1),
		[]string{`c.yaml:2:71: bridges[0].out[0].qos: 300 is out of range`},
	},
	{
		"a size without a known unit",
		"gateway:\n  memory_limit: 64M\n",
		[]string{`c.yaml:2:17: gateway.memory_limit: "64M" is not a size; write a whole number with B, kB, MB, GB, KiB, MiB or GiB, as in 64KiB`},
	},
	{
		"a duration without a unit",
		"store: {commit_interval: 10}\n",
		[]string{`c.yaml:1:26: store.commit_interval: "10" is not a duration; write a number with ms, s, m, h or d, as in 10s`},
	},
	{
		"a section for text",
		"gateway:\n  name:\n    first: x\n",
		[]string{`c.yaml:3:5: gateway.name: is a section of keys, want text`},
	},
	{
		"a list for a rate",
		strings.Replace(goodBridge, "name: ", "catch_up: {rate: [200/s]}, name: ", 1),
		[]string{`c.yaml:2:23: bridges[0].catch_up.rate: is a list, want a single value`},
	},
	{
		"a rate without a time",
		strings.Replace(goodBridge, "name: ", "catch_up: {rate: 200}, name: ", 1),
		[]string{`c.yaml:2:23: bridges[0].catch_up.rate: "200" is not a rate; write messages as in 200/s, bytes as in 64KiB/s, or both as in 200/s 64KiB/s`},
	},
	{
		"a truth value for text",
		"gateway:\n  name: true\n",
		[]string{`c.yaml:2:9: gateway.name: true is a truth value, want text: write "true" in quotes`},
	},
	{
		"text for a section",
		"gateway: pump-house\n",
		[]string{`c.yaml:1:10: gateway: "pump-house" is not a section with keys such as name:`},
	},
	{
		"a list for a section",
		"admin: [127.0.0.1:8080]\n",
		[]string{`c.yaml:1:8: admin: is a list, want a section with keys such as listen:`},
	},
	{
		"one value for a list",
		strings.Replace(goodBridge, "['tcp://h:1883']", "tcp://h:1883", 1),
		[]string{`c.yaml:2:28: bridges[0].servers: "tcp://h:1883" is a single value, want a list: write [tcp://h:1883]`},
	},
	{
		"an empty list entry",
		"broker:\n  listeners:\n    -\n    - address: tcp://127.0.0.1:1883\n",
		[]string{`c.yaml:3:6: broker.listeners[0]: is empty: write a section with keys such as address:, or remove the -`},
	},
	{
		"a gateway name that cannot be in a topic",
		"gateway:\n  name: north/pump\n",
		[]string{`c.yaml:2:9: gateway.name: "north/pump" cannot be a level of a topic: leave out / + # and control characters`},
	},
	{
		"a log level misspelt",
		"gateway: {log: {level: inof}}\n",
		[]string{`c.yaml:1:24: gateway.log.level: "inof" is no level: did you mean "info"?`},
	},
	{
		"a log format that is not there",
		"gateway: {log: {format: logfmt}}\n",
		[]string{`c.yaml:1:25: gateway.log.format: "logfmt" is no format: want one of text, json`},
	},
	{
		"too little memory",
		"gateway: {memory_limit: 1MiB}\n",
		[]string{`c.yaml:1:25: gateway.memory_limit: 1MiB is too little to work with: give 16MiB or more`},
	},
	{
		"a commit that never comes",
		"store: {online_delay: 1h}\n",
		[]string{`c.yaml:1:23: store.online_delay: 1h is too long: publishers wait for it; give 1m or less`},
	},
	{
		"a segment that a small board cannot map",
		"store: {segment_size: 1GiB}\n",
		[]string{`c.yaml:1:23: store.segment_size: 1GiB is not possible: give 64KiB to 128MiB`},
	},
	{
		"a 0 that means something else than the default",
		"broker: {limits: {max_connections: 0}}\nstore:\n  online_delay: 0\n",
		[]string{
			`c.yaml:1:36: broker.limits.max_connections: 0 is not possible: leave the key out for the default, 1000`,
			`c.yaml:3:17: store.online_delay: 0 is not possible: leave the key out for the default, 1s`,
		},
	},
	{
		"a listener off loopback",
		"broker:\n  listeners:\n    - address: tcp://0.0.0.0:1883\n",
		[]string{`c.yaml:3:16: broker.listeners[0].address: "tcp://0.0.0.0:1883" is reachable from the network, so say who may connect: name a broker.password_file, which "tidegate passwd FILE USER" makes, or write broker.allow_anonymous: true to let everybody in`},
	},
	{
		"a page off loopback",
		"admin: {listen: ':8080'}\n",
		[]string{`c.yaml:1:17: admin.listen: ":8080" is reachable from the network, but this version has no authentication: use 127.0.0.1 or [::1]`},
	},
	{
		"a page without a port",
		"admin: {listen: localhost}\n",
		[]string{`c.yaml:1:17: admin.listen: "localhost" is no address: write host:port, as in 127.0.0.1:8080`},
	},
	{
		"an adapter of unknown kind",
		"adapters:\n  - name: a\n    kind: serail\n",
		[]string{`c.yaml:3:11: adapters[0].kind: "serail" is no kind: did you mean "serial"?`},
	},
	{
		"an adapter without a kind",
		"adapters:\n  - name: a\n",
		[]string{`c.yaml:2:5: adapters[0]: kind is missing: known kinds are serial`},
	},
	{
		"two adapters of one name",
		"adapters:\n" + goodAdapter + goodAdapter,
		[]string{`c.yaml:3:12: adapters[1].name: "a" is the name of adapters[0] already: each needs its own`},
	},
	{
		"a bridge without servers, said of the bridge",
		"bridges:\n  - name: cloud\n    out: [{topics: [a]}]\n",
		[]string{`c.yaml:2:5: bridges[0].servers: is missing: write at least one, as in [tcp://broker.example.com:1883]`},
	},
	{
		"a misspelt key that is required is one mistake",
		strings.Replace(goodBridge, "servers", "server", 1),
		[]string{`c.yaml:2:19: bridges[0]: unknown key "server": did you mean "servers"?`},
	},
	{
		"an environment variable that is not set",
		"gateway: {name: '${TIDEGATE_TEST_UNSET}'}\n",
		[]string{`c.yaml:1:17: gateway.name: environment variable TIDEGATE_TEST_UNSET is not set: set it, or write $${TIDEGATE_TEST_UNSET} if the text is meant literally`},
	},
	{
		"an environment variable without a name",
		"gateway: {name: 'a${b'}\n",
		[]string{`c.yaml:1:17: gateway.name: "${b" starts no environment variable: write ${NAME}, or $${ for a plain ${`},
	},
	{
		"a secret file that is not there",
		strings.Replace(goodBridge, "out:", "username: u, password_file: no.pass, out:", 1),
		[]string{`c.yaml:2:74: bridges[0].password_file: no.pass: there is no such file`},
	},
	{
		"a secret given twice",
		strings.Replace(goodBridge, "out:", "username: u, password: x, password_file: no.pass, out:", 1),
		[]string{`c.yaml:2:87: bridges[0].password_file: password is given as well: keep one of the two`},
	},
	{
		"a merge key",
		"gateway: &g {name: x}\nadmin:\n  <<: *g\n",
		[]string{`c.yaml:3:3: admin: << is no key: write the keys out`},
	},
	{
		"an alias of nothing",
		"gateway: {name: *n}\n",
		[]string{`c.yaml:1:17: gateway.name: alias *n has no anchor &n above it in this file`},
	},
	{
		"a tag",
		"gateway: {name: !!str 5}\n",
		[]string{`c.yaml:1:17: gateway.name: tags such as !!str are not used here: remove it`},
	},
	{
		"a second document",
		"gateway: {name: x}\n---\nadmin: {}\n",
		[]string{`c.yaml:3:1: a second document starts here: remove the --- above it, one file is one document`},
	},
	{
		"a tab",
		"gateway:\n\tname: x\n",
		[]string{`c.yaml:2:1: not YAML: a line starts with a tab: indent with spaces`},
	},
	{
		"a list that is not closed",
		"broker:\n  listeners: [\nadmin: {}\n",
		[]string{`c.yaml:2:14: not YAML: sequence end token ']' not found`},
	},
}

func TestEveryMistakeIsSaidWithItsPlace(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			_, got := loadFiles(t, map[string]string{"c.yaml": m.yaml})
			equalLines(t, got, m.want)
		})
	}
}

func TestAllMistakesAreSaidAtOnceInOrder(t *testing.T) {
	_, got := loadFiles(t, map[string]string{
		"c.yaml":           "gateway:\n  nmae: x\n  memory_limit: lots\nadmin: {listen: 0.0.0.0:80}\n",
		"conf.d/10-b.yaml": "bridges:\n  - name: a/b\n    servers: [tcp://h]\n    out: [{topics: ['#/x']}]\n",
		"conf.d/20-x.yaml": "broker:\n  - x\n",
		"conf.d/30-y.yaml": "a: [",
	})
	// The file that is no YAML hides half of the configuration, so what the
	// sections would say about missing values is not said.
	equalLines(t, got, []string{
		`c.yaml:2:3: gateway: unknown key "nmae": did you mean "name"?`,
		`c.yaml:3:17: gateway.memory_limit: "lots" is not a size; write a whole number with B, kB, MB, GB, KiB, MiB or GiB, as in 64KiB`,
		`conf.d/20-x.yaml:2:3: broker: is a list, want a section with keys such as listeners:`,
		`conf.d/30-y.yaml:1:4: not YAML: sequence end token ']' not found`,
	})
}

func TestConfDMergesInNameOrder(t *testing.T) {
	c := mustLoad(t, map[string]string{
		"c.yaml":           "gateway:\n  name: main\n  log: {level: debug}\n" + goodBridge,
		"conf.d/20-b.yaml": "gateway: {name: second}\nadapters:\n" + goodAdapter,
		"conf.d/10-a.yaml": "gateway:\n  name: first\n  log: {format: json}\n" + strings.Replace(goodBridge, "cloud", "site", 1),
		"conf.d/ignored":   "not: [yaml",
		"conf.d/.x.yaml":   "not: [yaml",
	})
	if c.Gateway.Name != "second" || c.Gateway.Log != (LogConfig{"debug", "json"}) {
		t.Errorf("gateway = %+v, want name second, level debug, format json", c.Gateway)
	}
	if len(c.Bridges) != 2 || c.Bridges[0].Name != "cloud" || c.Bridges[1].Name != "site" || len(c.Adapters) != 1 {
		t.Errorf("bridges = %+v, adapters = %+v, want cloud, site and one adapter", c.Bridges, c.Adapters)
	}
}

func TestMistakesInConfDPointThere(t *testing.T) {
	_, got := loadFiles(t, map[string]string{
		"c.yaml":          goodBridge,
		"conf.d/two.yaml": "bridges:\n  - name: site\n    servers: [tcp://h, http://h]\n    out: [{topics: [a]}]\n",
	})
	equalLines(t, got, []string{
		`conf.d/two.yaml:3:24: bridges[1].servers[1]: "http://h" has the scheme "http"; it takes tcp, tls, ws or wss: for WebSocket write ws://`,
	})
}

func TestFilesThatCannotBeRead(t *testing.T) {
	_, got := loadFiles(t, nil)
	equalLines(t, got, []string{"c.yaml: there is no such file"})
	_, got = loadFiles(t, map[string]string{"c.yaml/x": ""})
	equalLines(t, got, []string{"c.yaml: cannot be read: is a directory"})
}

func TestEmptyFilesAndSectionsAreTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "gateway:\nbroker:\n  listeners:\nbridges:\nadmin: {}\n", "\ufeffgateway:\n"} {
		c := mustLoad(t, map[string]string{"c.yaml": text})
		if encodeYAML(t, c) != encodeYAML(t, Default()) {
			t.Errorf("%q is not the default but\n%s", text, encodeYAML(t, c))
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("TIDEGATE_TEST_HOST", "h1")
	t.Setenv("TIDEGATE_TEST_INFLIGHT", "77")
	t.Setenv("TIDEGATE_TEST_EMPTY", "")
	c := mustLoad(t, map[string]string{"c.yaml": `
gateway: {name: "x$${HOME}-$5"}
broker: {limits: {max_inflight: "${TIDEGATE_TEST_INFLIGHT}"}}
bridges:
  - name: cloud
    servers: ["tcp://${TIDEGATE_TEST_HOST}:1883"]
    client_id: ${TIDEGATE_TEST_HOST}${TIDEGATE_TEST_EMPTY}-${TIDEGATE_TEST_INFLIGHT}
    out: [{topics: [a]}]
`})
	b := c.Bridges[0]
	if c.Gateway.Name != "x${HOME}-$5" || c.Broker.Limits.MaxInflight != 77 || b.Servers[0] != "tcp://h1:1883" || b.ClientID != "h1-77" {
		t.Errorf("got %+v, %+v, %+v", c.Gateway, c.Broker.Limits, b)
	}
}

func TestSecretsAreReadFromFiles(t *testing.T) {
	files := map[string]string{
		"c.yaml":             "",
		"conf.d/cloud.yaml":  strings.Replace(goodBridge, "out:", "username: u, password_file: secret/pass, out:", 1),
		"conf.d/secret/pass": "",
	}
	for contents, want := range map[string]string{"geheim": "geheim", "geheim\n": "geheim", "geheim\r\n": "geheim", " a b \n\n": " a b \n"} {
		files["conf.d/secret/pass"] = contents
		c := mustLoad(t, files)
		if c.Bridges[0].Password != want {
			t.Errorf("file %q became the password %q, want %q", contents, c.Bridges[0].Password, want)
		}
	}
	files["conf.d/secret/pass"] = "\n"
	_, errs := loadFiles(t, files)
	equalLines(t, errs, []string{"conf.d/cloud.yaml:2:74: bridges[0].password_file: conf.d/secret/pass is empty: write the secret into its first line"})
}

func TestAnchorsStandForTheirValue(t *testing.T) {
	c := mustLoad(t, map[string]string{"c.yaml": `
gateway: {name: &name pump}
bridges:
  - {name: *name, servers: &servers ["tcp://a"], out: &out [{topics: [a]}]}
  - {name: two, servers: *servers, out: *out}
`})
	if c.Bridges[0].Name != "pump" || c.Bridges[1].Servers[0] != "tcp://a" || len(c.Bridges[1].Out) != 1 {
		t.Errorf("bridges = %+v", c.Bridges)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"name", "data_dir", "memory_limit", "log"}
	for name, want := range map[string]string{
		"nmae": "name", "Name": "name", "data-dir": "data_dir", "memory": "", "lgo": "log", "x": "", "": "", "logs": "log", "zzz": "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestMemoryLimitGrowsWithMaxConnections(t *testing.T) {
	for connections, want := range map[int]units.Size{0: 64 * units.MiB, 10: 64 * units.MiB, 1001: 64*units.MiB + 16*units.KiB} {
		var c Config
		c.Broker.Limits.MaxConnections = connections
		c.SetDefaults()
		if c.Gateway.MemoryLimit != want {
			t.Errorf("with max_connections %d memory_limit is %v, want %v", connections, c.Gateway.MemoryLimit, want)
		}
	}
}
