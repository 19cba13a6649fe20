package admin

import (
	"bytes"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// own returns what the server writes itself, without figures of this process.
func own(text string) string {
	before, _, _ := strings.Cut(text, "\ngo_")
	before, _, _ = strings.Cut(before, "\nprocess_")
	return strings.ReplaceAll(strings.TrimRight(before, "\n")+"\n", runtime.Version(), "GO")
}

func TestMetricsOfTheExample(t *testing.T) {
	var b bytes.Buffer
	st := example()
	writeMetrics(&b, &st)
	golden(t, "metrics.txt", own(b.String()))
	if runtime.GOOS == "linux" && !regexp.MustCompile(`(?m)^process_resident_memory_bytes [1-9]`).MatchString(b.String()) {
		t.Error("there is no process_resident_memory_bytes")
	}
}

// TestMetricsFormat checks every line against the text format 0.0.4, and that a
// family stands together behind its help and type.
func TestMetricsFormat(t *testing.T) {
	st := example()
	st.Bridges[0].Name = "a\"b\\c\nd"
	var b bytes.Buffer
	writeMetrics(&b, &st)
	if !strings.Contains(b.String(), `tidegate_bridge_connected{bridge="a\"b\\c\nd"} 1`) {
		t.Error("the name of the bridge is not quoted")
	}
	comment := regexp.MustCompile(`^# (HELP|TYPE) (tidegate_[a-z0-9_]+) \S.*$`)
	sample := regexp.MustCompile(`^([a-z_][a-z0-9_]*)(?:\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+$`)
	seen, family := map[string]bool{}, ""
	for line := range strings.Lines(own(b.String())) {
		line = strings.TrimSuffix(line, "\n")
		if m := comment.FindStringSubmatch(line); m != nil {
			if m[1] == "HELP" && seen[m[2]] {
				t.Errorf("%s comes twice", m[2])
			}
			family, seen[m[2]] = m[2], true
			continue
		}
		if m := sample.FindStringSubmatch(line); m == nil || m[1] != family {
			t.Errorf("%q is no sample of %s", line, family)
		}
	}
	if len(seen) < 40 {
		t.Errorf("there are only %d metrics", len(seen))
	}
}

func TestMetricsOverHTTP(t *testing.T) {
	d := newBed(t, nil)
	resp, body := d.do("GET", "/metrics", nil)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("metrics answer %d %s", resp.StatusCode, resp.Header)
	}
	for _, want := range []string{`tidegate_build_info{version="1.2.3",goversion="`, "\ntidegate_ready 1\n", "\ntidegate_store_writable 1\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("there is no %q in\n%s", want, body)
		}
	}
	if strings.Contains(body, "tidegate_bridge") || strings.Contains(body, "tidegate_adapter") {
		t.Errorf("there is no bridge and no adapter:\n%s", body)
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	st := example()
	writeMetrics(&b, &st)
	written := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(b.String(), -1) {
		written[m[1]] = true
		if !strings.Contains(string(text), "`"+m[1]+"`") {
			t.Errorf("docs/operations.md does not explain %s", m[1])
		}
	}
	for _, name := range regexp.MustCompile(`\btidegate_[a-z_]+`).FindAllString(string(text), -1) {
		if !written[name] {
			t.Errorf("docs/operations.md explains %s, which does not exist", name)
		}
	}
}

func BenchmarkMetrics(b *testing.B) {
	st := example()
	var buf bytes.Buffer
	for b.Loop() {
		buf.Reset()
		writeMetrics(&buf, &st)
	}
}

// TestLogLinesAreReal finds log lines in docs/operations.md that the code does not
// write.
func TestLogLinesAreReal(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Log lines worth an alarm\n")
	lines := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1)
	if len(lines) < 10 {
		t.Fatalf("docs/operations.md has only the log lines %q", lines)
	}
	code := goCode(t, "..")
	for _, line := range lines {
		if !strings.Contains(code, `"`+line[1]) {
			t.Errorf("docs/operations.md explains a log line that nobody writes: %s", line[1])
		}
	}
}

// goCode returns all Go below dir that is no test.
func goCode(t *testing.T, dir string) string {
	t.Helper()
	var code strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(os.DirFS(dir), path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return code.String()
}
