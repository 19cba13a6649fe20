package decode

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The reasons for which a frame is refused.
const (
	ReasonNotText = "not_text" // bytes that are not UTF-8, or control characters: noise, or a wrong baud rate
	ReasonEmpty   = "empty"    // no value in it
	ReasonColumns = "columns"  // csv: not as many columns as fields
	ReasonPair    = "pair"     // keyvalue: something without name or value
	ReasonJSON    = "json"     // json: not an object, or not JSON
	ReasonNoMatch = "no_match" // regex: the pattern is not in it
)

// Error says why a frame is refused. It never holds the frame, which may be
// anything.
type Error struct {
	Reason string // one of the Reason words, to count by
	Text   string
}

func (e *Error) Error() string { return e.Text }

func refuse(reason, format string, args ...any) error {
	return &Error{reason, fmt.Sprintf(format, args...)}
}

// Field is one value of a frame.
type Field struct {
	Name  string
	Value any // float64, int64, string or bool
}

// Decoder reads frames. It may be used by several goroutines.
type Decoder interface {
	// Decode returns the fields of frame in its order, json in the order of
	// their names. There is at least one. The frame is not kept. An error is
	// an [*Error].
	Decode(frame []byte) ([]Field, error)
}

// printable returns frame as text without the blanks around it.
func printable(frame []byte) (string, error) {
	for i := 0; i < len(frame); {
		r, size := utf8.DecodeRune(frame[i:])
		if r == utf8.RuneError && size == 1 || r < ' ' && r != '\t' || r == 0x7f {
			return "", refuse(ReasonNotText, "byte %d of the frame, 0x%02x, is no text; check baud rate, data bits and parity", i, frame[i])
		}
		i += size
	}
	s := strings.TrimSpace(string(frame))
	if s == "" {
		return "", refuse(ReasonEmpty, "the frame is blank")
	}
	return s, nil
}

// number returns s as int64 or float64 if it is a decimal number, else as it is.
// What is out of range becomes infinite, which no publisher takes.
func number(s string) any {
	if strings.ContainsAny(s, "xX_") { // Go's own hexadecimal floats are no sensor's
		return s
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return s
	}
	return f
}
