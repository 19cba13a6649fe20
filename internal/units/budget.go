package units

import (
	"fmt"
	"strings"
)

// Budget is a number of bytes a day, written "500MB/day". 0: there is none.
type Budget int64

const perDay = "/day"

// String writes b as a Size a day.
func (b Budget) String() string {
	if b == 0 {
		return "0"
	}
	return Size(b).String() + perDay
}

// MarshalText writes b as String does.
func (b Budget) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a [Size] a day, or a lone 0.
func (b *Budget) UnmarshalText(text []byte) error {
	head, ok := strings.CutSuffix(strings.TrimSpace(string(text)), perDay)
	var s Size
	if err := s.UnmarshalText([]byte(head)); err != nil || !ok && s != 0 {
		return fmt.Errorf("%q is not so much a day; write a size and /day, as in 500MB/day", text)
	}
	*b = Budget(s)
	return nil
}
