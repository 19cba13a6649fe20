package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// RunWithProgram builds the gateway, sets *program to the path of its binary, runs
// the tests of m, and returns what [os.Exit] is to be called with.
func RunWithProgram(m *testing.M, program *string) int {
	dir, err := os.MkdirTemp("", "tidegate-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*program = filepath.Join(dir, "tidegate")
	build := exec.Command("go", "build", "-o", *program, "tidegate/cmd/gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
