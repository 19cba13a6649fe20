package load

import (
	"os"
	"runtime"
	"strconv"
	"testing"
)

func TestProcFormats(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"processor time of a process", processCPU("42 (mosquitto) S 1 42 42 0 -1 4194560 1523 0 0 0 130 45 0 0 20 0 1 0 8100 9"), 1.75},
		{"... whose name has blanks and brackets", processCPU("42 (a b) c) S 1 42 42 0 -1 4194560 1523 0 0 0 7 3 0 0 20"), .1},
		{"... of a line that is cut", processCPU("42 (x) S 1"), 0},
		{"processor time of the machine", busy("cpu  100 20 30 9999 888 7 6 5 4 3\ncpu0 1 1 1 1 1\n"), 1.68},
		{"... where there is none", busy(""), 0},
		{"a size", float64(field("Name:\tx\nVmHWM:\t    9000 kB\nVmRSS:\t    8932 kB\n", "VmRSS")), 8932},
		{"a number", float64(field("wchar: 15000000\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n", "write_bytes")), 4096},
		{"a key without a value", float64(field("VmRSS:\n", "VmRSS")), 0},
		{"a key that is missing", float64(field("VmRSS: 1 kB\n", "RssAnon")), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestProcessUsage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	u, err := processUsage(strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if u.rss < 1<<20 || u.anon < 1<<18 || u.anon > u.rss {
		t.Errorf("this test has %d bytes of memory, of them %d anonymous", u.rss, u.anon)
	}
	if _, err := processUsage("0"); err == nil {
		t.Error("process 0 can be measured")
	}
}
