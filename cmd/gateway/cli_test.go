package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/adapters/serial"
)

var update = flag.Bool("update", false, "write testdata/*.golden instead of comparing")

// golden compares got with testdata/name.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s\n(go test ./cmd/gateway -update accepts it)", got, want)
	}
}

// call runs a command line without input.
func call(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	return callWith(t.Context(), "", args...)
}

func callWith(ctx context.Context, in string, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(ctx, args, stdio{strings.NewReader(in), &o, &e})
	return code, o.String(), e.String()
}

// commandNames are the names in [tree].
func commandNames() []string {
	var list []string
	for _, c := range tree(func(command) {}).Commands() {
		list = append(list, c.Name())
	}
	return list
}

func TestHelp(t *testing.T) {
	code, out, errOut := call(t, "--help")
	if code != exitDone || errOut != "" {
		t.Errorf("--help ends with %d and says %q", code, errOut)
	}
	golden(t, "help", out)
	for _, name := range commandNames() {
		code, out, errOut := call(t, name, "--help")
		if code != exitDone || errOut != "" || !strings.Contains(out, "    tidegate "+name) {
			t.Errorf("%s --help ends with %d, says %q and should have an example:\n%s", name, code, errOut, out)
		}
		golden(t, "help-"+name, out)
	}
}

func TestExitCodes(t *testing.T) {
	t.Setenv("TIDEGATE_CONFIG", "")
	dir := writeFiles(t, map[string]string{
		"good.yaml": "gateway: {name: x}\n",
		"bad.yaml":  "gatway: {}\nadmin: {listen: 0.0.0.0:1}\n",
	})
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	badText := bad + `:1:1: unknown key "gatway": did you mean "gateway"?` + "\n" + bad +
		`:2:17: admin.listen: "0.0.0.0:1" is reachable from the network, but this version has no authentication: use 127.0.0.1 or [::1]` + "\n"
	cases := []struct {
		line   string
		code   int
		errOut string
	}{
		{"check --config " + good, exitDone, ""},
		{"check --config " + bad, exitUsage, badText},
		{"config --config " + bad, exitUsage, badText},
		{"check --config /nowhere.yaml", exitUsage, "/nowhere.yaml: there is no such file\n"},
		{"", exitUsage, "tidegate: say what to do (see: tidegate --help)\n"},
		{"-x", exitUsage, "tidegate: unknown shorthand flag: 'x' in -x (see: tidegate --help)\n"},
		{"queue", exitUsage, "tidegate: say what to do (see: tidegate queue --help)\n"},
		{"queue lst", exitUsage, `tidegate: unexpected argument lst, did you mean "list"? (see: tidegate queue --help)` + "\n"},
		{"queue dump", exitUsage, "tidegate: NAME is missing (see: tidegate queue dump --help)\n"},
		{"pub -t", exitUsage, "tidegate: flag needs an argument: 't' in -t (see: tidegate pub --help)\n"},
		{"sub", exitUsage, `tidegate: required flag(s) "topic" not set (see: tidegate sub --help)` + "\n"},
		{"chekc", exitUsage, `tidegate: unexpected argument chekc, did you mean "check"? (see: tidegate --help)` + "\n"},
		{"check --confg x", exitUsage, `tidegate: unknown flag --confg, did you mean "--config"? (see: tidegate check --help)` + "\n"},
		{"check x", exitUsage, "tidegate: unexpected argument x (see: tidegate check --help)\n"},
		{"version -o yaml", exitUsage, `tidegate: invalid argument "yaml" for "-o, --output" flag: it is text or json (see: tidegate version --help)` + "\n"},
		{"pub -m x", exitUsage, "tidegate: say where to publish with -t (see: tidegate pub --help)\n"},
		{"pub -t a", exitUsage, "tidegate: say what to publish with -m, -n, -l, -s or -f (see: tidegate pub --help)\n"},
		{"pub -t a -m x -n", exitUsage, "tidegate: only one of -m, -n, -l, -s, -f and --json-lines can be used (see: tidegate pub --help)\n"},
		{"pub -t a/# -n", exitUsage, "tidegate: invalid topic: \"a/#\" has the wildcard '#', which only a filter may have (see: tidegate pub --help)\n"},
		{"pub -t a -n -q 3", exitUsage, `tidegate: invalid argument "3" for "-q, --qos" flag: it is 0, 1 or 2 (see: tidegate pub --help)` + "\n"},
		{"sub -t a#", exitUsage, `tidegate: invalid topic: "a#" has a wildcard beside other characters in the level "a#" (see: tidegate sub --help)` + "\n"},
		{"sub -t a -c", exitUsage, "tidegate: --disable-clean-session needs --id, or the session could not be found again (see: tidegate sub --help)\n"},
		{"pub -t a -f /nowhere", exitFailed, "tidegate: read the message: open /nowhere: no such file or directory\n"},
	}
	for _, c := range cases {
		code, out, errOut := call(t, strings.Fields(c.line)...)
		if code != c.code || errOut != c.errOut || out != "" {
			t.Errorf("%q ends with %d and says\n%s%swant %d and\n%s", c.line, code, out, errOut, c.code, c.errOut)
		}
	}
}

func TestConfigurationIsFoundWhereTheEnvironmentSays(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a.yaml": "gateway: {name: from-env}\n", "b.yaml": "gateway: {name: named}\n"})
	t.Setenv("TIDEGATE_CONFIG", filepath.Join(dir, "a.yaml"))
	for want, args := range map[string][]string{
		"name: from-env\n": {"config"},
		"name: named\n":    {"config", "--config", filepath.Join(dir, "b.yaml")},
	} {
		if code, out, errOut := call(t, args...); code != exitDone || !strings.Contains(out, want) {
			t.Errorf("%q ends with %d, says %q and prints\n%s", args, code, errOut, out)
		}
	}
}

func TestConfigOutput(t *testing.T) {
	for _, format := range []string{"yaml", "json"} {
		code, out, errOut := call(t, "config", "-o", format, "--config", "../../configs/pi-usb-serial.yaml")
		if code != exitDone || errOut != "" {
			t.Errorf("config ends with %d and says %q", code, errOut)
		}
		golden(t, "config-pi-usb-serial-"+format, out)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := call(t, "version")
	if code != exitDone || !strings.HasPrefix(out, "tidegate development, commit ") {
		t.Errorf("version ends with %d and prints %q", code, out)
	}
	var b build
	_, out, _ = call(t, "version", "-o", "json")
	if err := json.Unmarshal([]byte(out), &b); err != nil || b != thisBuild() {
		t.Errorf("version -o json prints %q, %v", out, err)
	}
}

func TestDevices(t *testing.T) {
	var ports []serial.PortInfo
	if code, out, errOut := call(t, "devices", "-o", "json"); code != exitDone || json.Unmarshal([]byte(out), &ports) != nil || out[0] != '[' {
		t.Errorf("devices -o json ends with %d, says %q and prints %q", code, errOut, out)
	}
	var out bytes.Buffer
	if err := printPorts(&out, nil); err != nil || out.String() != noPorts {
		t.Errorf("without ports: %q, %v", out.String(), err)
	}
	out.Reset()
	err := printPorts(&out, []serial.PortInfo{
		{Path: "/dev/ttyAMA0"},
		{
			Path: "/dev/ttyUSB0", VID: "0403", PID: "6001", Serial: "A5028", Product: "FT232R USB UART",
			ByID: []string{"/dev/serial/by-id/usb-FTDI"}, ByPath: []string{"/dev/serial/by-path/a", "/dev/serial/by-path/b"},
		},
	})
	if err != nil {
		t.Error(err)
	}
	golden(t, "devices", out.String())
}
