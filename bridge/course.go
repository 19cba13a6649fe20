package bridge

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tidegate/internal/backoff"
)

// course decides which of the servers is next, and how soon: the next one when one
// fails or stalls, and the first again when it is well. Of Run.
type course struct {
	servers int
	at      int // index of the server that is, or was last, tried
	wait    backoff.Backoff

	prefer   time.Duration // the first server is well when it has answered for so long; 0: never
	need     time.Duration // ... and just now; longer after returns that were no use
	returned bool          // the way to the first server is such a return
	from     int           // the server that it left
}

// maxNeed bounds the doubling of need.
const maxNeed = 24 * time.Hour

// errReturn ends the link to another server because the first is well.
var errReturn = errors.New("the first server is well again")

func newCourse(cfg *Config) course {
	return course{
		servers: len(cfg.Servers),
		wait:    backoff.Backoff{Min: time.Duration(cfg.Backoff.Min), Max: time.Duration(cfg.Backoff.Max)},
		prefer:  time.Duration(*cfg.PreferFirst), need: time.Duration(*cfg.PreferFirst),
	}
}

// scouts reports whether the first server is worth a look from the one at hand.
func (c *course) scouts() bool { return c.prefer > 0 && c.at != 0 }

// next takes how the last try ended, and returns how long to wait before the next,
// to c.at.
func (c *course) next(end ending) time.Duration {
	if errors.Is(end.why, errReturn) {
		c.returned, c.from, c.at = true, c.at, 0
		return 0
	}
	if end.proven {
		c.wait.Reset()
	}
	back := c.returned
	if c.returned = false; back {
		c.judge(end.stood)
		if end.stood == 0 { // it did not even come about: at once to where it was well
			c.at = c.from
			return 0
		}
	}
	if !end.proven || fellSilent(end.why) {
		c.at = (c.at + 1) % c.servers
	}
	return c.wait.Next()
}

// again has the next try go to the same server, as if nothing had failed before.
func (c *course) again() {
	c.wait.Reset()
	c.returned = false
}

// fellSilent reports whether the server, or the way to it, failed without a word: the
// next try at it would cost as much time again.
func fellSilent(why error) bool {
	switch causeOf(why) {
	case causeStalled, causeSilent, causeUnread:
		return true
	}
	return false
}

// judge doubles the time that the first server must answer, if it did not stand for
// as long as it was tried for. So one that answers and does not work costs ever less.
func (c *course) judge(stood time.Duration) {
	if stood < c.need {
		c.need = min(2*c.need, max(maxNeed, c.prefer))
		return
	}
	c.need = c.prefer
}

// looksPer is how often the first server is looked at within the time that it must
// have answered for.
const looksPer = 4

// scout looks at the first server now and then, and returns true once all looks
// have found it well for as long as need, or false when ctx is done. The looks
// come at random, so that a fleet does not return in step.
func scout(ctx context.Context, need time.Duration, well func(context.Context) bool) bool {
	var since time.Time // the first of the looks that all found it well
	for {
		pause(ctx, need/looksPer/2+rand.N(need/looksPer))
		found := ctx.Err() == nil && well(ctx)
		switch {
		case ctx.Err() != nil:
			return false
		case !found:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= need:
			return true
		}
	}
}
