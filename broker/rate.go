package broker

import "time"

// pace holds back a client that publishes faster than publish_rate allows: it is
// read no further until its next message is due. What it may publish in a second
// may come at once.
func (c *conn) pace(t *turn) error {
	rate := int64(c.b.cfg.Limits.PublishRate)
	if rate == 0 {
		return nil
	}
	c.paid = max(c.paid, t.now-int64(time.Second)) + int64(time.Second)/rate
	ahead := time.Duration(c.paid - t.now)
	if ahead <= 0 {
		return nil
	}
	t.end()
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		t.begin()
		return nil
	case <-c.done:
		return c.endedBy
	}
}
