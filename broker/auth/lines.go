package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// maxFile is the largest password or ACL file in bytes: room for 30,000 users.
const maxFile = 4 << 20

// LineError is one wrong line of a file. Its text never holds a password.
type LineError struct {
	File   string
	Line   int    // from 1
	Reason string // what is wrong, what would be right
}

func (e LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// LineErrors are all wrong lines of a file, in its order. Each makes a line of
// the text.
type LineErrors []LineError

func (e LineErrors) Error() string {
	lines := make([]string, len(e))
	for i, line := range e {
		lines[i] = line.Error()
	}
	return strings.Join(lines, "\n")
}

// eachLine calls parse with every line of text, without its end and with its
// number, and collects what parse complains about.
func eachLine(file string, text []byte, parse func(n int, line string) error) error {
	var wrong LineErrors
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := parseLine(n, line, parse); err != nil {
			wrong = append(wrong, LineError{file, n, err.Error()})
		}
	}
	if wrong != nil {
		return wrong
	}
	return nil
}

func parseLine(n int, line []byte, parse func(n int, line string) error) error {
	if !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
		return errors.New("the line is not UTF-8 text")
	}
	return parse(n, string(bytes.TrimRight(line, "\r\n")))
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes: is it the right file?", path, maxFile)
	}
	return text, err
}

// blanks separate the words of a line and do not count around names.
const blanks = " \t\r\n\v\f"
