package bridge

import (
	"fmt"
	"net"
	"slices"

	"tidegate/internal/check"
	"tidegate/internal/units"
)

// Warnings returns what the rules of all bridges of a gateway, whose
// configurations have no mistakes, do that their author may not expect: rules
// that never match, and messages that go in circles. The bridge works all the
// same. listens are the gateway's own addresses, "host:port". Paths begin with
// the number of the bridge, as "[0].out[1].topics[0]".
func Warnings(bridges []Config, listens []string) check.Problems {
	var p check.Problems
	for i := range bridges {
		c, at := &bridges[i], fmt.Sprintf("[%d]", i)
		warnShadowed(&p, at+".out", c.Out)
		warnShadowed(&p, at+".in", c.In)
		warnOwn(&p, at, c, listens)
		warnEcho(&p, at, c)
		warnTwice(&p, at, c)
		if c.CatchUp.Order == liveFirst && c.CatchUp.Rate != (units.Rate{}) && c.MaxInflight < leastLanes {
			p.Add(at+".max_inflight", "%d is so few that live messages wait while the rate holds back the backlog: live_first needs %d or more", c.MaxInflight, leastLanes)
		}
		for j := range bridges {
			if i == j || !shareServer(c, &bridges[j]) {
				continue
			}
			warnCircle(&p, at, c, &bridges[j])
			if j < i && c.ClientID != "" && c.ClientID == bridges[j].ClientID {
				p.Add(at+".client_id", "%q is that of the bridge %q at the same server, which lets only one of them be connected: give each its own", c.ClientID, bridges[j].Name)
			}
		}
	}
	return p
}

// leastLanes is how many places the window must have for a live message to get one: one is
// for the backlog.
const leastLanes = 2

// lane is one filter of a rule.
type lane struct {
	rule   *Rule
	filter string
	path   string // as ".topics[0]" behind the rules' path
}

func lanes(rules []Rule) []lane {
	var list []lane
	for i := range rules {
		for j, f := range rules[i].Topics {
			list = append(list, lane{&rules[i], f, fmt.Sprintf("[%d].topics[%d]", i, j)})
		}
	}
	return list
}

// reaches reports whether a message that l carries can match filter.
func (l lane) reaches(filter string) bool {
	return slices.ContainsFunc(l.rule.images(l.filter), func(image string) bool { return overlap(image, filter) })
}

// warnShadowed finds filters that an earlier one leaves nothing to.
func warnShadowed(p *check.Problems, path string, rules []Rule) {
	all := lanes(rules)
	for i, l := range all {
		for _, before := range all[:i] {
			if covers(before.filter, l.filter) {
				p.Add(path+l.path, "%q never matches: %q above takes all of its topics; the first rule that matches wins, so put the narrower one first", l.filter, before.filter)
				break
			}
		}
	}
}

// warnOwn finds a server that is the gateway itself.
func warnOwn(p *check.Problems, path string, c *Config, listens []string) {
	for i, s := range c.Servers {
		address, err := serverAddress(s)
		if err == nil && slices.ContainsFunc(listens, func(own string) bool { return sameMachine(own, address) }) {
			p.Add(fmt.Sprintf("%s.servers[%d]", path, i), "%s is this gateway itself: what goes out comes back", s)
		}
	}
}

// sameMachine reports whether address, of a server, leads to own, of a listener.
func sameMachine(own, address string) bool {
	ownHost, ownPort, err := net.SplitHostPort(own)
	if err != nil {
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != ownPort {
		return false
	}
	ip := net.ParseIP(host)
	return host == ownHost || host == "localhost" || ip != nil && ip.IsLoopback()
}

// warnEcho finds what a bridge sends and gets back through its own rules.
func warnEcho(p *check.Problems, path string, c *Config) {
	if c.Protocol == 5 { // No Local
		return
	}
	for _, in := range lanes(c.In) {
		for _, out := range lanes(c.Out) {
			if out.reaches(in.filter) {
				p.Add(path+".in"+in.path, "%q upstream includes what out%s sends: the bridge drops what it sent itself, but a server that speaks MQTT 3.1.1 sends it all back; name only what others publish", in.filter, out.path)
				break
			}
		}
	}
}

// warnTwice finds filters of in that have topics in common, though neither has all of the
// other's, see wanted.
func warnTwice(p *check.Problems, path string, c *Config) {
	all := lanes(c.In)
	for i, l := range all {
		for _, before := range all[:i] {
			if overlap(l.filter, before.filter) && !covers(l.filter, before.filter) && !covers(before.filter, l.filter) {
				p.Add(path+".in"+l.path, "%q and %q above have topics in common, whose messages many servers send twice: name each topic by one of them", l.filter, before.filter)
				break
			}
		}
	}
}

// warnCircle finds what c brings down and other carries up again to where it
// came from.
func warnCircle(p *check.Problems, path string, c, other *Config) {
	for _, in := range lanes(c.In) {
		for _, out := range lanes(other.Out) {
			if in.reaches(out.filter) && out.reaches(in.filter) {
				p.Add(path+".in"+in.path, "%q goes in a circle: out%s of the bridge %q carries it up to the same server again; the bridges stop it after one round, but keep their topics apart", in.filter, out.path, other.Name)
				break
			}
		}
	}
}

func shareServer(a, b *Config) bool {
	return slices.ContainsFunc(a.Servers, func(s string) bool {
		address, err := serverAddress(s)
		return err == nil && slices.ContainsFunc(b.Servers, func(t string) bool {
			other, err := serverAddress(t)
			return err == nil && other == address
		})
	})
}
