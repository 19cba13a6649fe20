package mqtt

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxTopic is the longest topic name or filter in bytes: its length travels in
// two bytes (MQTT 3.1.1, section 1.5.3).
const maxTopic = 65535

// ValidName reports why s cannot be the topic name of a message, or nil. The
// error wraps [ErrInvalidTopic].
func ValidName(s string) error {
	if err := validText(s); err != nil {
		return err
	}
	if i := strings.IndexAny(s, "+#"); i >= 0 {
		return fmt.Errorf("%w: %q has the wildcard %q, which only a filter may have", ErrInvalidTopic, s, s[i])
	}
	return nil
}

// ValidFilter reports why s cannot be a topic filter, or nil. The error wraps
// [ErrInvalidTopic].
func ValidFilter(s string) error {
	if err := validText(s); err != nil {
		return err
	}
	for level, rest, more := strings.Cut(s, "/"); ; level, rest, more = strings.Cut(rest, "/") {
		if len(level) > 1 && strings.ContainsAny(level, "+#") {
			return fmt.Errorf("%w: %q has a wildcard beside other characters in the level %q", ErrInvalidTopic, s, level)
		}
		if level == "#" && more {
			return fmt.Errorf("%w: %q has levels behind #, which must be the last", ErrInvalidTopic, s)
		}
		if !more {
			return nil
		}
	}
}

// validText holds what names and filters have in common (MQTT 3.1.1, sections
// 1.5.3 and 4.7.3).
func validText(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidTopic)
	case len(s) > maxTopic:
		return fmt.Errorf("%w: %d bytes are more than %d", ErrInvalidTopic, len(s), maxTopic)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%w: %q has a zero byte", ErrInvalidTopic, s)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %q is not UTF-8", ErrInvalidTopic, s)
	}
	return nil
}

// Match reports whether the lawful filter matches the lawful topic name.
// A wildcard in the first level does not match names that start with $
// (MQTT 3.1.1, section 4.7.2).
func Match(filter, name string) bool {
	if name != "" && name[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		want, filterRest, filterMore := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		have, nameRest, nameMore := strings.Cut(name, "/")
		if want != "+" && want != have {
			return false
		}
		switch {
		case filterMore && nameMore:
			filter, name = filterRest, nameRest
		case filterMore: // "a/#" matches its parent "a"
			return filterRest == "#"
		default:
			return !nameMore
		}
	}
}
