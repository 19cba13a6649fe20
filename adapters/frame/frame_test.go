package frame

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"tidegate/internal/units"
)

// split feeds the chunks and returns the frames; "!" stands for one too long.
func split(s Splitter, chunks ...string) []string {
	var got []string
	for _, c := range chunks {
		for f, err := range s.Frames([]byte(c)) {
			if errors.Is(err, ErrTooLong) {
				f = []byte("!")
			}
			got = append(got, string(f))
		}
	}
	return got
}

func newLines(limit int) *lines {
	return (&Config{Kind: KindLine, Max: units.Size(limit)}).New().(*lines)
}

func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"line feeds":                  {"a\nb\n", []string{"a", "b"}},
		"both":                        {"a\r\nb\r\n", []string{"a", "b"}},
		"both the other way round":    {"a\n\rb\n\r", []string{"a", "b"}},
		"lone carriage returns":       {"a\rb\r", []string{"a", "b"}},
		"a mixture":                   {"a\rb\nc\r\nd\n", []string{"a", "b", "c", "d"}},
		"empty lines are skipped":     {"\n\n\r\n\ra\n\n", []string{"a"}},
		"a line without an end waits": {"a\nb", []string{"a"}},
		"exactly the limit":           {"12345678\n", []string{"12345678"}},

		"over the limit is dropped up to its end":          {"123456789\nb\n", []string{"!", "b"}},
		"a long one counts once":                           {strings.Repeat("x", 100) + "\nb\n", []string{"!", "b"}},
		"a long one that has not ended yet":                {strings.Repeat("x", 100), []string{"!"}},
		"other control characters belong to the line":      {"a\x00\t\x1b\n", []string{"a\x00\t\x1b"}},
		"the end of an over-long line is not an empty one": {"123456789\r\n\r\nb\n", []string{"!", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := split(newLines(8), c.in); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := split(newLines(8), strings.Split(c.in, "")...); !slices.Equal(got, c.want) {
				t.Errorf("byte by byte: got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSkipFirst(t *testing.T) {
	for in, want := range map[string]string{
		"cut\nwhole\n":                        "whole",
		"\nwhole\n":                           "whole",
		strings.Repeat("x", 99) + "\nwhole\n": "whole",
		"cut":                                 "",
	} {
		l := newLines(8)
		l.SkipFirst()
		if got := split(l, strings.Split(in, "")...); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestALineThatNeverEndsKeepsNoMemory(t *testing.T) {
	const limit = 4096
	l := newLines(limit)
	chunk := bytes.Repeat([]byte("x"), 1000)
	var errs int
	for range 10_000 {
		for range l.Frames(chunk) {
			errs++
		}
		if cap(l.rest) > 2*limit {
			t.Fatalf("keeps %d bytes, limit %d", cap(l.rest), limit)
		}
	}
	if got := split(l, "end\nnext\n"); errs != 1 || !slices.Equal(got, []string{"next"}) {
		t.Errorf("%d errors, then %q", errs, got)
	}
}

func TestFramesAllocateNothingInSteadyState(t *testing.T) {
	l := newLines(64)
	a, b := []byte("21.4,4"), []byte("0\r\n21.5,41\r\n")
	n := testing.AllocsPerRun(100, func() {
		for range l.Frames(a) {
			t.Error("a frame without an end")
		}
		for range l.Frames(b) {
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCheck(t *testing.T) {
	var c Config
	c.SetDefaults()
	if p := c.Check(); len(p) > 0 || c.Kind != KindLine || c.Max != 4096 {
		t.Errorf("defaults %+v: %v", c, p)
	}
	for path, c := range map[string]Config{
		"kind": {Kind: "slip", Max: 1},
		"max":  {Kind: KindLine, Max: units.GiB},
	} {
		if p := c.Check(); len(p) != 1 || p[0].Path != path {
			t.Errorf("%+v: %v, want one problem at %q", c, p, path)
		}
	}
}

// The frames are the same however the stream is cut into reads, and the same as
// a naive splitter finds that sees all of it at once.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\r\nccc\rdddddddddd\n\ne"), []byte{1, 2, 3}, false)
	f.Add([]byte("\r\r\n123456789"), []byte{0}, true)
	f.Fuzz(func(t *testing.T, stream, cuts []byte, skip bool) {
		const limit = 8
		want := naive(stream, limit, skip)
		l := newLines(limit)
		if skip {
			l.SkipFirst()
		}
		if got := split(l, chop(stream, cuts)...); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if cap(l.rest) > 4*limit {
			t.Errorf("keeps %d bytes, limit %d", cap(l.rest), limit)
		}
	})
}

func naive(stream []byte, limit int, skip bool) (frames []string) {
	all := bytes.Split(bytes.ReplaceAll(stream, []byte("\r"), []byte("\n")), []byte("\n"))
	for i, line := range all {
		last := i == len(all)-1
		switch {
		case i == 0 && skip, len(line) == 0:
		case len(line) > limit:
			frames = append(frames, "!")
		case !last:
			frames = append(frames, string(line))
		}
	}
	return frames
}

// chop cuts the stream into pieces whose lengths the fuzzer chooses.
func chop(stream, cuts []byte) (chunks []string) {
	for i := 0; len(stream) > 0; i++ {
		n := 1
		if len(cuts) > 0 {
			n += int(cuts[i%len(cuts)])
		}
		n = min(n, len(stream))
		chunks = append(chunks, string(stream[:n]))
		stream = stream[n:]
	}
	return chunks
}
