package units

import (
	"fmt"
	"strconv"
	"strings"
)

// Rate is a number of messages, of bytes, or of both per second. What is 0 is not
// limited.
type Rate struct {
	Messages int64 `yaml:"-"`
	Bytes    Size  `yaml:"-"`
}

// String writes r as in "200/s 64KiB/s".
func (r Rate) String() string {
	var parts []string
	if r.Messages > 0 {
		parts = append(parts, strconv.FormatInt(int64(r.Messages), 10)+"/s")
	}
	if r.Bytes > 0 {
		text := r.Bytes.String()
		if text[len(text)-1] != 'B' {
			text += "B"
		}
		parts = append(parts, text+"/s")
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, " ")
}

// MarshalText writes r as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads whole numbers of messages as in "200/s", sizes as in
// "64KiB/s", one of each with a space between, or "0".
func (r *Rate) UnmarshalText(text []byte) error {
	*r = Rate{}
	parts := strings.Fields(string(text))
	if len(parts) == 1 && parts[0] == "0" {
		return nil
	}
	for _, part := range parts {
		if !r.read(part) {
			parts = nil
			break
		}
	}
	if len(parts) == 0 {
		return fmt.Errorf("%q is not a rate; write messages as in 200/s, bytes as in 64KiB/s, or both as in 200/s 64KiB/s", text)
	}
	return nil
}

// read reads one part of a rate and reports whether it is one that was not there
// before.
func (r *Rate) read(part string) bool {
	number, ok := strings.CutSuffix(part, "/s")
	if !ok {
		return false
	}
	var n Size
	if n.UnmarshalText([]byte(number)) != nil || n == 0 {
		return false
	}
	if strings.HasSuffix(number, "B") {
		fresh := r.Bytes == 0
		r.Bytes = n
		return fresh
	}
	fresh := r.Messages == 0
	r.Messages = int64(n)
	return fresh
}

// Percent is a share of a whole.
type Percent int

// String writes p as in "50%".
func (p Percent) String() string { return strconv.Itoa(int(p)) + "%" }

// MarshalText writes p as String does.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a whole number from 0 to 100 with a percent sign.
func (p *Percent) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	n, err := strconv.ParseUint(number, 10, 8)
	if !ok || err != nil || n > 100 {
		return fmt.Errorf("%q is not a share; write a whole number from 0%% to 100%%, as in 50%%", text)
	}
	*p = Percent(n)
	return nil
}
