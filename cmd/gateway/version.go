package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// These are set by the linker: -ldflags "-X main.version=1.2.3 -X main.built=2026-01-02T03:04:05Z".
var (
	version string
	built   string // a time that has passed: of the commit, or of the build; the Go tool does not always note one
)

// VersionCmd prints version and platform.
type VersionCmd struct {
	outputFlag
}

// Help is shown by --help.
func (VersionCmd) Help() string {
	return `Prints the version, the commit it was built from, the Go release and the platform.

Example:

    tidegate version -o json`
}

// build is what the program knows about itself.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // "unknown" when not built from a checkout
	Go       string `json:"go"`
	Platform string `json:"platform"` // such as linux/arm64

	time time.Time // of the commit; zero: unknown
}

// thisBuild asks the linker and the Go tool.
func thisBuild() build {
	b := build{Version: version, Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	if b.Version == "" {
		b.Version = "development"
	}
	b.time, _ = time.Parse(time.RFC3339, built)
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.time":
			if at, err := time.Parse(time.RFC3339, s.Value); err == nil && b.time.IsZero() {
				b.time = at
			}
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	b.Commit += modified
	return b
}

// Run prints one line.
func (c *VersionCmd) Run(_ context.Context, std stdio) error {
	b := thisBuild()
	if c.Output == "json" {
		return printJSON(std, b)
	}
	_, err := fmt.Fprintf(std.Out, "%s %s, commit %s, %s, %s\n", program, b.Version, b.Commit, b.Go, b.Platform)
	return err
}
