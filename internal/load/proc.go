package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// usage is what a process has used so far and uses now.
type usage struct {
	cpu  float64 // seconds, user and system
	rss  int64   // bytes
	anon int64   // bytes of it that are not files
	disk int64   // bytes that it caused to be written to disk
}

// clockTicks is what /proc counts processor time in, per second, on all platforms
// that Go supports.
const clockTicks = 100

// processUsage reads the usage of a process, whose name "self" is this one, from
// Linux's /proc (proc(5)).
func processUsage(pid string) (usage, error) {
	dir := "/proc/" + pid + "/"
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return usage{}, measureError(pid, err)
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return usage{}, measureError(pid, err)
	}
	io, err := os.ReadFile(dir + "io")
	if err != nil {
		return usage{}, measureError(pid, err)
	}
	return usage{
		cpu:  processCPU(string(stat)),
		rss:  field(string(status), "VmRSS") << 10,
		anon: field(string(status), "RssAnon") << 10,
		disk: field(string(io), "write_bytes"),
	}, nil
}

func measureError(pid string, err error) error {
	return fmt.Errorf("measure process %s (it takes Linux, a process that runs, and its user): %w", pid, err)
}

// processCPU reads the seconds out of a stat file. Its second field is the name in
// brackets, which may hold blanks and brackets.
func processCPU(stat string) float64 {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	return float64(number(f[11])+number(f[12])) / clockTicks
}

// machineCPU is how many seconds all processes together have used, 0 if unknown.
func machineCPU() float64 {
	stat, _ := os.ReadFile("/proc/stat")
	return busy(string(stat))
}

// busy adds up the first line of /proc/stat: user, nice and system time, and that
// of interrupts and other guests of the host, but not idle and waiting.
func busy(stat string) float64 {
	line, _, _ := strings.Cut(stat, "\n")
	var ticks int64
	for i, f := range strings.Fields(line) {
		if i >= 1 && i <= 8 && i != 4 && i != 5 {
			ticks += number(f)
		}
	}
	return float64(ticks) / clockTicks
}

// field reads the number of a line "key: number unit".
func field(text, key string) int64 {
	for line := range strings.Lines(text) {
		k, v, found := strings.Cut(line, ":")
		if found && k == key {
			return number(strings.Fields(v + " 0")[0])
		}
	}
	return 0
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
