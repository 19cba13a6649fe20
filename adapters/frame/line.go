package frame

import (
	"bytes"
	"iter"
)

// lines ends a frame at a line feed or a carriage return and skips empty ones,
// so that "\n", "\r\n" and a lone "\r" all end a line, also when a stream mixes
// them.
type lines struct {
	max  int
	rest []byte // the beginning of a line, at most max bytes
	skip bool   // drop everything up to the next end
}

func (l *lines) SkipFirst() { l.skip = true }

func (l *lines) Frames(p []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for len(p) > 0 {
			part, ended := p, false
			if i := bytes.IndexAny(p, "\r\n"); i >= 0 {
				part, ended, p = p[:i], true, p[i+1:]
			} else {
				p = nil
			}
			line, err := l.add(part, ended)
			if (len(line) > 0 || err != nil) && !yield(line, err) {
				return
			}
		}
	}
}

// add takes the next part of a line, which ends with it if ended is true, and
// returns the line once it has.
func (l *lines) add(part []byte, ended bool) (line []byte, err error) {
	switch {
	case l.skip:
		l.skip = !ended
		return nil, nil
	case len(l.rest)+len(part) > l.max:
		l.rest, l.skip = l.rest[:0], !ended
		return nil, ErrTooLong
	case !ended:
		l.rest = append(l.rest, part...)
		return nil, nil
	case len(l.rest) == 0:
		return part, nil
	}
	line = append(l.rest, part...)
	l.rest = line[:0]
	return line, nil
}
