package conformance

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// version is one of the protocols that the broker speaks.
type version string

const (
	v31  version = "3.1"
	v311 version = "3.1.1"
	v5   version = "5"
)

// letters say what a letter stands for.
type letters map[string]string

// letters returns those that are the same for every client.
func (v version) letters() letters {
	switch v {
	case v31:
		return letters{"N": `"MQIsdp"`, "V": "03"}
	case v311:
		return letters{"N": `"MQTT"`, "V": "04"}
	}
	return letters{"N": `"MQTT"`, "V": "05", "P": "00"}
}

// pattern is a sequence of bytes with gaps.
type pattern []element

// element is a byte, or any byte, or any number of bytes.
type element struct {
	value byte
	any   bool
	many  bool
}

var (
	word  = regexp.MustCompile(`"[^"]*"(?:\*\d+)?|'[^']*'(?:\*\d+)?|[{}]|\*\*|[NVPIJ]|[0-9a-f?]+|\S+`)
	octet = regexp.MustCompile(`^(?:[0-9a-f]{2}|\?\?)+$`)
)

// parse reads the notation that doc.go describes.
func parse(text string, l letters) (pattern, error) {
	stack := []pattern{nil}
	for _, tok := range word.FindAllString(text, -1) {
		top := len(stack) - 1
		switch {
		case tok == "{":
			stack = append(stack, nil)
			continue
		case tok == "}" && top > 0:
			inner := stack[top]
			stack = stack[:top]
			stack[top-1] = append(append(stack[top-1], length(inner)...), inner...)
			continue
		}
		p, err := one(tok, l)
		if err != nil {
			return nil, err
		}
		stack[top] = append(stack[top], p...)
	}
	if len(stack) > 1 {
		return nil, fmt.Errorf("%q: a { is never closed", text)
	}
	return stack[0], nil
}

// one reads one token.
func one(tok string, l letters) (pattern, error) {
	switch {
	case tok == "**":
		return pattern{{many: true}}, nil
	case strings.ContainsAny(tok, "NVPIJ") && len(tok) == 1:
		return parse(l[tok], l)
	case tok[0] == '"' || tok[0] == '\'':
		return quoted(tok)
	case octet.MatchString(tok):
		return octets(tok)
	}
	return nil, fmt.Errorf("%q is neither bytes nor text", tok)
}

func octets(tok string) (p pattern, err error) {
	for ; tok != ""; tok = tok[2:] {
		if tok[:2] == "??" {
			p = append(p, element{any: true})
			continue
		}
		b, err := hex.DecodeString(tok[:2])
		if err != nil {
			return nil, err
		}
		p = append(p, element{value: b[0]})
	}
	return p, nil
}

// quoted reads a text, which may be repeated.
func quoted(tok string) (pattern, error) {
	quote := tok[:1]
	text, times, _ := strings.Cut(tok[1:], quote)
	if times != "" {
		n, err := strconv.Atoi(times[1:])
		if err != nil {
			return nil, err
		}
		text = strings.Repeat(text, n)
	}
	if quote == `"` {
		text = string([]byte{byte(len(text) >> 8), byte(len(text))}) + text
	}
	return literal([]byte(text)), nil
}

func literal(b []byte) (p pattern) {
	for _, b := range b {
		p = append(p, element{value: b})
	}
	return p
}

// length is that of p as a variable byte integer, or any if p has a gap.
func length(p pattern) pattern {
	for _, e := range p {
		if e.many {
			return pattern{{many: true}}
		}
	}
	return literal(varint(len(p)))
}

func varint(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// bytes returns what p says; it must have no gaps.
func (p pattern) bytes() ([]byte, error) {
	b := make([]byte, 0, len(p))
	for _, e := range p {
		if e.any || e.many {
			return nil, fmt.Errorf("what is sent has no gaps")
		}
		b = append(b, e.value)
	}
	return b, nil
}

// matches reports whether p describes b.
func (p pattern) matches(b []byte) bool {
	for i, e := range p {
		switch {
		case e.many:
			for j := range len(b) + 1 {
				if p[i+1:].matches(b[j:]) {
					return true
				}
			}
			return false
		case len(b) == 0, !e.any && b[0] != e.value:
			return false
		}
		b = b[1:]
	}
	return len(b) == 0
}

func TestNotation(t *testing.T) {
	for text, want := range map[string]string{
		`10 {N V 02 003c P "a"}`:  "100d00044d5154540402003c000161",
		`'ab' {'x'*130} {"y"}`:    "61628201" + strings.Repeat("78", 130) + "03000179",
		`82{0001 P "é" 01}`:       "82070001" + "0002c3a9" + "01",
		`{{}} "" ''`:              "01000000",
		`"x"*3 fffe`:              "0003787878fffe",
		"00 01\t0203":             "00010203",
		`{"a" {"b" {"c"} } 'd' }`: "0c000161" + "07000162" + "03000163" + "64",
	} {
		p, err := parse(text, v311.letters())
		if err != nil {
			t.Fatal(err)
		}
		if b, err := p.bytes(); err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%s is %x, %v, want %s", text, b, err, want)
		}
	}
	for _, text := range []string{"0", "{00", "}", "xy", "?", "00 ** 0g"} {
		if p, err := parse(text, v5.letters()); err == nil {
			t.Errorf("%q is %v, want an error", text, p)
		}
	}
}

func TestGaps(t *testing.T) {
	for text, cases := range map[string]map[string]bool{
		"40 {????}":         {"40021234": true, "400212": false, "4003123456": false},
		"e0 {82 **}":        {"e00182": true, "e0028200": true, "e00181": false},
		`20 {00 ** 'ab'**}`: {"200300" + "6162": true, "20050001" + "616263": true, "20020061": false},
	} {
		p, err := parse(text, v5.letters())
		if err != nil {
			t.Fatal(err)
		}
		for raw, want := range cases {
			b, err := hex.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			if p.matches(b) != want {
				t.Errorf("%s matches %s: %v, want %v", text, raw, !want, want)
			}
		}
	}
}
