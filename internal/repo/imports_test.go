package repo

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the name in go.mod.
const module = "tidegate"

// room is a package's row in the table.
//
// Packages import downwards: a room may import the rooms that it names, all of
// a lower level, and those below internal/ that stand no higher than itself.
// Its tests may also import its own folders and everything below internal/.
type room struct {
	level    int
	why      string   // what lives there, or why it may import what it may
	may      []string // rooms it may import
	all      bool     // it may import every room
	alone    bool     // it imports not even internal/
	testOnly bool     // only tests may import it
}

// rooms is the table of who imports whom.
var rooms = map[string]room{
	"mqtt": {
		level: 0, alone: true,
		why: "the vocabulary of all rooms imports nothing, so that broker, bridge and adapters never import one another",
	},
	"adapters/frame":   {level: 0, why: "byte framing is pure: no I/O, no MQTT"},
	"adapters/decode":  {level: 0, why: "frames to fields is pure: no I/O, no MQTT"},
	"internal/units":   {level: 0, why: "sizes and durations of the configuration"},
	"internal/check":   {level: 0, why: "mistakes in the configuration"},
	"internal/clock":   {level: 0, why: "what time it is, and how far that can be trusted, for all who stamp and store"},
	"internal/backoff": {level: 0, why: "waiting longer after each failure, for bridge and adapters"},
	"internal/quiet":   {level: 0, why: "system calls on sockets that the scheduler is not told of, for broker and bridge"},
	"internal/pty":     {level: 0, why: "a pseudo terminal that plays a serial sensor, for demo and tests"},
	"internal/tty":     {level: 0, why: "a password from the terminal, for the command passwd"},
	"internal/proxy":   {level: 0, why: "a TCP proxy that rehearses outages, for demo and tests"},
	"mqtt/packet": {
		level: 1, may: []string{"mqtt"},
		why: "bytes to packets and back; no I/O, so that broker and client share it",
	},
	"broker/auth": {
		level: 1, may: []string{"mqtt"},
		why: "who you are and what you may do is decided without the broker's state",
	},
	"internal/limits": {
		level: 1, may: []string{"mqtt"},
		why: "the section queue of the configuration, the same for broker and bridge",
	},
	"store": {level: 1, why: "bytes only; knows no MQTT, so that the file format does not follow the protocol"},
	"internal/client": {
		level: 2, may: []string{"mqtt", "mqtt/packet"},
		why: "a small MQTT client for pub, sub and tests",
	},
	"internal/load": {
		level: 2, may: []string{"mqtt", "mqtt/packet"},
		why: "a load generator for bench: sees the broker through its socket, as any client does",
	},
	"broker": {
		level: 2, may: []string{"mqtt", "mqtt/packet", "broker/auth", "store"},
		why: "the only room that knows both the protocol and the store",
	},
	"bridge": {
		level: 2, may: []string{"mqtt", "mqtt/packet"},
		why: "sees the broker as an mqtt.Publisher and mqtt.Subscriber, so that its queue is the broker's; of the codec it uses the words for reasons",
	},
	"adapters": {
		level: 2, may: []string{"mqtt"},
		why: "sees the broker as an mqtt.Publisher; the kinds of adapter see no MQTT at all",
	},
	"adapters/serial": {
		level: 3, may: []string{"adapters", "adapters/frame", "adapters/decode"},
		why: "a kind of adapter knows its device, not where readings go",
	},
	"admin": {
		level: 3, may: []string{"mqtt", "store", "broker", "bridge", "adapters"},
		why: "shows the state of every room; none of them knows it",
	},
	"internal/conformance": {
		level: 3, may: []string{"mqtt/packet", "broker", "broker/auth", "store"}, testOnly: true,
		why: "the broker against every normative statement, byte by byte",
	},
	"cmd/gateway":      {level: 4, all: true, why: "commands, configuration, and the one place where rooms meet"},
	"internal/leak":    {level: 0, testOnly: true, why: "finds goroutines that a test left running"},
	"internal/testbed": {level: 0, testOnly: true, why: "other programs that tests of several rooms stand beside"},
	"internal/balance": {level: 3, may: []string{"broker"}, testOnly: true, why: "holds every broker that a test embeds to its accounts"},
	"internal/repo":    {level: 0, testOnly: true, why: "these rules"},
	"internal/e2e":     {level: 4, all: true, testOnly: true, why: "the whole gateway from outside"},
	"internal/interop": {level: 1, may: []string{"mqtt"}, testOnly: true, why: "the whole gateway as other clients see it, through its sockets"},
}

// place says where a third-party module may be imported: in whole packages, or
// in single files where it is to stay replaceable. Tests beside them may, too.
type place struct {
	in  []string
	why string
}

// modules is every third-party module that our code imports.
var modules = map[string]place{
	"github.com/eclipse/paho.mqtt.golang": {[]string{"bridge/paho.go"}, "the link upstream; a second client library can stand beside it"},
	"github.com/eclipse/paho.golang":      {[]string{"bridge/paho5.go", "bridge/session5.go"}, "the link upstream in MQTT 5"},
	"github.com/tarm/serial":              {[]string{"adapters/serial/port.go"}, "unmaintained: behind the interface Port it can be replaced"},
	"go.etcd.io/bbolt":                    {[]string{"store"}, "nobody else knows how bytes reach the disk"},
	"github.com/spf13/cobra":              {[]string{"cmd/gateway"}, "the command line"},
	"github.com/spf13/pflag":              {[]string{"cmd/gateway"}, "the flags of commands"},
	"github.com/goccy/go-yaml":            {[]string{"cmd/gateway"}, "each room owns a plain Config; only the command reads files"},
	"github.com/gorilla/websocket":        {[]string{"broker/listener_ws.go", "bridge/websocket.go"}, "MQTT over WebSocket: a listener, and the way to servers that have one"},
	"github.com/VictoriaMetrics/metrics":  {[]string{"admin"}, "rooms have counters of their own; only the page knows the format"},
	"golang.org/x/sys":                    {[]string{"internal/pty", "cmd/gateway/processor_linux.go"}, "system calls that package syscall does not have"},
}

// imports holds every import of one room by another against the table.
func imports(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		own, listed := rooms[f.dir]
		if !listed {
			bad = append(bad, tr.at(f.ast.Package, "package %s is not in the table: add it to rooms in internal/repo/imports_test.go", f.dir))
			continue
		}
		for _, spec := range f.ast.Imports {
			importPath, _ := strconv.Unquote(spec.Path.Value)
			dep, ours := strings.CutPrefix(importPath, module+"/")
			if ours && !own.allows(f, dep) {
				bad = append(bad, tr.at(spec.Pos(), "%s may not import %s (%s)", f.dir, dep, own.why))
			}
		}
	}
	return bad
}

// allows reports whether the file f of this room may import dep.
func (r room) allows(f *source, dep string) bool {
	target, listed := rooms[dep]
	inner := strings.HasPrefix(dep, "internal/")
	switch {
	case !listed:
		return false // reported where dep stands, and here
	case f.test && (inner || strings.HasPrefix(dep+"/", f.dir+"/")):
		return true
	case target.testOnly:
		return false
	case slices.Contains(r.may, dep), r.all:
		return true
	}
	return inner && !r.alone && target.level <= r.level
}

// thirdParty holds every import of a module that is not ours against modules.
func thirdParty(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		for _, spec := range f.ast.Imports {
			importPath, _ := strconv.Unquote(spec.Path.Value)
			if !foreign(importPath) {
				continue
			}
			name, where := moduleOf(importPath)
			switch {
			case name == "":
				bad = append(bad, tr.at(spec.Pos(), "%s belongs to no module in the table: add it to modules in internal/repo/imports_test.go", importPath))
			case !where.has(f):
				bad = append(bad, tr.at(spec.Pos(), "%s is for %s only (%s)", name, strings.Join(where.in, ", "), where.why))
			}
		}
	}
	return bad
}

// foreign reports whether an import is neither ours nor the standard library's,
// whose paths have no dot in their first part.
func foreign(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return strings.Contains(first, ".")
}

// moduleOf finds the module in the table that has the package.
func moduleOf(importPath string) (string, place) {
	for name, where := range modules {
		if importPath == name || strings.HasPrefix(importPath, name+"/") {
			return name, where
		}
	}
	return "", place{}
}

// has reports whether f may import the module.
func (p place) has(f *source) bool {
	return slices.ContainsFunc(p.in, func(in string) bool {
		if path.Ext(in) == ".go" {
			return f.path == in || f.test && f.dir == path.Dir(in)
		}
		return f.dir == in
	})
}

// stdLog finds imports of package log: logs go through an injected *slog.Logger.
func stdLog(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		for _, spec := range f.ast.Imports {
			if spec.Path.Value == `"log"` {
				bad = append(bad, tr.at(spec.Pos(), "package log writes past the configured logger: take a *slog.Logger"))
			}
		}
	}
	return bad
}

func TestTableGoesDownwards(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(rooms)) {
		r := rooms[name]
		if r.why == "" {
			t.Errorf("%s has no sentence", name)
		}
		for _, dep := range r.may {
			if target, listed := rooms[dep]; !listed || target.level >= r.level {
				t.Errorf("%s (level %d) may import %s (level %d): only what is listed and lower", name, r.level, dep, target.level)
			}
		}
		if strings.HasPrefix(name, "internal/") && !r.testOnly {
			for _, dep := range r.may {
				if rooms[dep].level > 1 {
					t.Errorf("%s may import %s, but internal packages import nothing above level 1", name, dep)
				}
			}
		}
	}
}

func TestImportsBreaches(t *testing.T) {
	file := func(pkg string, deps ...string) string {
		text := "package " + pkg + "\n"
		for _, d := range deps {
			text += fmt.Sprintf("import %q\n", d)
		}
		return text
	}
	try(t, imports, []breach{
		{"what the table allows", map[string]string{
			"broker/a.go":            file("broker", "net", "tidegate/mqtt", "tidegate/store", "tidegate/internal/units"),
			"adapters/frame/a.go":    file("frame", "tidegate/internal/check"),
			"cmd/gateway/main.go":    file("main", "tidegate/broker", "tidegate/internal/client", "github.com/spf13/cobra"),
			"adapters/a_test.go":     file("adapters_test", "tidegate/adapters", "tidegate/adapters/serial", "tidegate/internal/leak"),
			"internal/e2e/a_test.go": file("e2e", "tidegate/broker", "tidegate/bridge"),
		}, nil},
		{"a room beside", map[string]string{"bridge/a.go": file("bridge", "net", "tidegate/broker")}, []string{
			"bridge/a.go:3: bridge may not import broker (sees the broker as…",
		}},
		{"a room beside, in a test", map[string]string{"bridge/a_test.go": file("bridge", "tidegate/broker")}, []string{
			"bridge/a_test.go:2: bridge may not import broker…",
		}},
		{"upwards", map[string]string{"mqtt/packet/a.go": file("packet", "tidegate/mqtt", "tidegate/broker")}, []string{
			"mqtt/packet/a.go:3: mqtt/packet may not import broker…",
		}},
		{"an internal package that stands higher", map[string]string{"store/a.go": file("store", "tidegate/internal/client")}, []string{
			"store/a.go:2: store may not import internal/client…",
		}},
		{"an internal package in the vocabulary", map[string]string{"mqtt/a.go": file("mqtt", "tidegate/internal/units")}, []string{
			"mqtt/a.go:2: mqtt may not import internal/units…",
		}},
		{"an internal package that imports a room above level 1", map[string]string{"internal/client/a.go": file("client", "tidegate/adapters")}, []string{
			"internal/client/a.go:2: internal/client may not import adapters…",
		}},
		{"test parts in the program", map[string]string{"cmd/gateway/a.go": file("main", "tidegate/internal/leak")}, []string{
			"cmd/gateway/a.go:2: cmd/gateway may not import internal/leak…",
		}},
		{"a name that only begins like one's own folder", map[string]string{"mqtt/a_test.go": file("mqtt", "tidegate/mqttx")}, []string{
			"mqtt/a_test.go:2: mqtt may not import mqttx…",
		}},
		{"a new package", map[string]string{"util/a.go": file("util")}, []string{
			"util/a.go:1: package util is not in the table: add it to…",
		}},
		{"other platforms, too", map[string]string{"bridge/a_windows.go": "//go:build windows\n\n" + file("bridge", "tidegate/store")}, []string{
			"bridge/a_windows.go:4: bridge may not import store…",
		}},
	})
}

func TestThirdPartyBreaches(t *testing.T) {
	paho, bbolt := "import paho \"github.com/eclipse/paho.mqtt.golang\"\n", "import \"go.etcd.io/bbolt/errors\"\n"
	try(t, thirdParty, []breach{
		{"in their places", map[string]string{
			"bridge/paho.go":      "package bridge\n" + paho,
			"bridge/link_test.go": "package bridge\n" + paho,
			"store/segment.go":    "package store\nimport \"os\"\nimport \"tidegate/internal/units\"\n" + bbolt,
		}, nil},
		{"in another file of the package", map[string]string{"bridge/uplink.go": "package bridge\n" + paho}, []string{
			"bridge/uplink.go:2: github.com/eclipse/paho.mqtt.golang is for bridge/paho.go only…",
		}},
		{"in another package, test or not", map[string]string{
			"broker/a.go":            "package broker\n" + bbolt,
			"internal/e2e/a_test.go": "package e2e\n" + bbolt,
		}, []string{
			"broker/a.go:2: go.etcd.io/bbolt is for store only…",
			"internal/e2e/a_test.go:2: go.etcd.io/bbolt is for store only…",
		}},
		{"a new module", map[string]string{"store/a.go": "package store\nimport _ \"go.etcd.io/bboltx\"\n"}, []string{
			"store/a.go:2: go.etcd.io/bboltx belongs to no module in the table: add it…",
		}},
	})
}

func TestStdLogBreaches(t *testing.T) {
	try(t, stdLog, []breach{
		{"slog", map[string]string{"a.go": "package a\nimport \"log/slog\"\n"}, nil},
		{"log", map[string]string{"a.go": "package a\nimport (\n\t\"fmt\"\n\tl \"log\"\n)\n"}, []string{"a.go:4: package log…"}},
	})
}
