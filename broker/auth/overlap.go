package auth

import (
	"slices"
	"strings"
)

// readable reports whether id could ever read a message that the filter matches:
// whether a rule that grants reading has topics in common with it, which no single
// rule denies all. Denials that only together leave nothing are not recognized;
// then the subscription stands, and nothing comes.
func (acl *ACL) readable(id Identity, filter string) bool {
	granted, denied := acl.filters(id)
	asked := strings.Split(filter, "/")
	return slices.ContainsFunc(granted, func(grant []string) bool {
		common, ok := intersect(asked, grant)
		return ok && !slices.ContainsFunc(denied, func(d []string) bool { return covers(d, common) })
	})
}

// filters returns the filters that id may read, and those that it is denied.
func (acl *ACL) filters(id Identity) (granted, denied [][]string) {
	sets := []*rules{&acl.patterns}
	if r := acl.users[id.User]; r != nil {
		sets = append(sets, r)
	}
	for _, set := range sets {
		for _, r := range set.list {
			filter, ok := r.expand(id)
			switch {
			case !ok:
			case r.grant == deny:
				denied = append(denied, filter)
			case r.grant&read != 0:
				granted = append(granted, filter)
			}
		}
	}
	return granted, denied
}

// expand returns the filter of r for id, as [rules.match] understands it, or false
// if r does not apply.
func (r rule) expand(id Identity) ([]string, bool) {
	filter := make([]string, 0, len(r.filter))
	for i, l := range r.filter {
		switch l.fillOf(id, i == 0) {
		case empty:
			return nil, false
		case risky:
			return append(filter, "+", "#"), r.grant == deny
		}
		filter = append(filter, l.expand(id))
	}
	return filter, true
}

// intersect returns the filter that matches what both a and b match, or false if
// nothing does.
func intersect(a, b []string) ([]string, bool) {
	if !sameRealm(a, b) {
		return nil, false
	}
	var both []string
	for i := 0; ; i++ {
		switch {
		case i < len(a) && a[i] == "#":
			return append(both, tail(b, i)...), true
		case i < len(b) && b[i] == "#":
			return append(both, tail(a, i)...), true
		case i == len(a) || i == len(b):
			return both, len(a) == len(b)
		case a[i] == b[i] || b[i] == "+":
			both = append(both, a[i])
		case a[i] == "+":
			both = append(both, b[i])
		default:
			return nil, false
		}
	}
}

// tail returns the levels of filter from i on.
func tail(filter []string, i int) []string { return filter[min(i, len(filter)):] }

// sameRealm is false if one filter is about topics that start with $ and the other
// begins with a wildcard, which does not match these.
func sameRealm(a, b []string) bool {
	return !(system(a) && wild(b[0]) || system(b) && wild(a[0]))
}

func system(filter []string) bool { return strings.HasPrefix(filter[0], "$") }

func wild(level string) bool { return level == "+" || level == "#" }

// covers reports whether a matches everything that b matches.
func covers(a, b []string) bool {
	if system(b) && wild(a[0]) {
		return false
	}
	for i := 0; ; i++ {
		switch {
		case i < len(a) && a[i] == "#":
			return true
		case i == len(a) || i == len(b):
			return len(a) == len(b)
		case b[i] == "#" || a[i] != "+" && a[i] != b[i]:
			return false
		}
	}
}
