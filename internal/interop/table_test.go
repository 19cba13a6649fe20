//go:build linux

package interop

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write docs/interop.md instead of comparing")

// failed is a cell whose test failed.
const failed = "NO"

// document is where the table stands for people to read.
const document = "../../docs/interop.md"

// table is what the cells have found.
type table struct {
	mu       sync.Mutex
	cells    map[string]string // by key
	releases map[string]string // of the clients, by driver
}

func newTable() *table {
	return &table{cells: make(map[string]string), releases: make(map[string]string)}
}

// set notes how a cell ended.
func (tb *table) set(d *driver, version int, feature string, t *testing.T) {
	result := "yes"
	switch {
	case t.Failed():
		result = failed
	case t.Skipped():
		result = "–"
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cells[key(d, version, feature)] = result
	tb.releases[d.name] = d.release
}

func key(d *driver, version int, feature string) string {
	return fmt.Sprintf("%s %d %s", d.name, version, feature)
}

// begin is how the row of a driver begins.
func begin(d *driver, version int) string {
	return fmt.Sprintf("| %s | %s |", d.name, protocols[version])
}

// row is a line of the document; whole says whether all of its cells were run.
func (tb *table) row(d *driver, version int) (line string, whole bool) {
	line, whole = begin(d, version), true
	for _, f := range features() {
		result := tb.cells[key(d, version, f.name)]
		whole = whole && result != ""
		line += " " + result + " |"
	}
	return line, whole
}

// compare looks for all rows in the document, or writes it.
func (tb *table) compare(t *testing.T) {
	t.Helper()
	if *update {
		tb.write(t)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drivers("") {
		for _, version := range d.versions {
			line, whole := tb.row(d, version)
			if !whole || strings.Contains(line, failed) { // which the cell itself reports
				line = begin(d, version)
			}
			if !strings.Contains(string(text), "\n"+line) {
				t.Errorf("docs/interop.md has no row\n%s\nrun: go test ./internal/interop -update", line)
			}
		}
	}
}

// write writes the document, for which every client has to be here.
func (tb *table) write(t *testing.T) {
	t.Helper()
	var text strings.Builder
	text.WriteString(preface)
	header, rule := "| client | MQTT |", "| --- | --- |"
	for _, f := range features() {
		header += " " + f.name + " |"
		rule += " --- |"
	}
	fmt.Fprintf(&text, "%s\n%s\n", header, rule)
	var releases []string
	for _, d := range drivers("") {
		for _, version := range d.versions {
			line, whole := tb.row(d, version)
			if !whole {
				t.Fatalf("not written, as not all cells were run: %s", line)
			}
			text.WriteString(line + "\n")
		}
		releases = append(releases, d.name+" "+tb.releases[d.name])
	}
	fmt.Fprintf(&text, "\nWritten with %s.\n", strings.Join(releases, "; "))
	if err := os.WriteFile(document, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// preface is what stands before the table.
const preface = `# Clients that work with the gateway

Written by ` + "`go test ./internal/interop -update`" + `, which runs the gateway's binary against
each client; the sources of the small programs are in internal/interop/testdata.

- *from* and *to*: the client publishes, the client receives. Every payload arrives,
  in order, and once.
- *retained*: the client publishes a retained message and finds it when it subscribes.
- *will*: the client's process is killed, and its will is published.
- *queue*: the client leaves a session behind; what is published meanwhile arrives
  when it comes back, every payload once.
- *TLS*, *WebSocket*: QoS 1 from, QoS 2 to, and a queue at QoS 1 for the client over such a
  listener.
- –: the client has no such transport, or the gateway has no such listener. NO: the test fails.

`
