package broker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"time"

	"tidegate/mqtt"
)

// sysInterval is how often the broker publishes about itself, as mosquitto does.
const sysInterval = 10 * time.Second

// sysPrefix is in front of these topics. Names and formats are mosquitto's, so
// that the dashboards that know them work.
const sysPrefix = "$SYS/broker/"

// sys publishes what the broker knows of itself. The messages are retained in
// memory only: nothing of them is written to the store.
type sys struct {
	b       *Broker
	version string
	loads   map[string]*load
	most    int // connections at one time
}

// load is how much of something there was per minute, averaged over the last
// minute, five and fifteen.
type load struct {
	before  uint64
	average [3]float64
}

// step takes over what was counted, dt after the last time.
func (l *load) step(count uint64, dt time.Duration) {
	perMinute := float64(count-l.before) / dt.Minutes()
	l.before = count
	for i, span := range loadSpans {
		l.average[i] += (perMinute - l.average[i]) * (1 - math.Exp(-dt.Minutes()/float64(span)))
	}
}

var loadSpans = [3]int{1, 5, 15} // minutes

// run publishes at once and then every interval, until ctx is done.
func (y *sys) run(ctx context.Context, t *turn) {
	tick := time.NewTicker(sysInterval)
	defer tick.Stop()
	y.publish(t, 0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			y.publish(t, sysInterval)
		}
	}
}

// publish publishes everything, dt after the last time.
func (y *sys) publish(t *turn, dt time.Duration) {
	t.begin()
	put := func(name string, value any) { y.put(t, name, fmt.Sprint(value)) }
	if dt == 0 {
		put("version", "tidegate version "+y.version)
	}
	put("uptime", fmt.Sprintf("%d seconds", y.b.now()/int64(time.Second)))
	y.clients(put)
	y.messages(put)
	if dt > 0 {
		y.load(put, dt)
	}
	t.end()
}

func (y *sys) clients(put func(string, any)) {
	connected, total, subscriptions, shared := y.b.population()
	y.most = max(y.most, connected)
	put("clients/connected", connected)
	put("clients/active", connected)
	put("clients/disconnected", total-connected)
	put("clients/inactive", total-connected)
	put("clients/total", total)
	put("clients/maximum", y.most)
	put("subscriptions/count", subscriptions)
	put("shared_subscriptions/count", shared)
	put("retained messages/count", y.b.retained.count()+y.b.sysRetained.count())
}

// population counts the sessions of network clients and their subscriptions, the
// shared ones apart.
func (b *Broker) population() (connected, total, subscriptions, shared int) {
	for _, s := range b.Sessions() {
		if s.Inbox || s.Members > 0 {
			continue
		}
		total++
		subscriptions += s.Subscriptions - s.Shared
		shared += s.Shared
		if s.Connected {
			connected++
		}
	}
	return connected, total, subscriptions, shared
}

func (y *sys) messages(put func(string, any)) {
	st := &y.b.stats
	put("messages/received", st.packets.Load())
	put("messages/sent", st.packetsSent.Load())
	put("publish/messages/received", st.received.Load())
	put("publish/messages/sent", st.sent.Load())
	put("publish/messages/dropped", st.dropped.Load())
	put("bytes/received", st.bytesReceived.Load())
	put("bytes/sent", st.bytesSent.Load())
	stored := y.b.commit.store.Stats()
	put("messages/stored", y.b.queued()+int64(y.b.retained.count()))
	put("store/messages/bytes", stored.JournalBytes)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	put("heap/current", m.HeapAlloc)
}

// queued returns how many messages durable sessions are owed, each counted once
// for every session.
func (b *Broker) queued() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.queues {
		n += s.owed.Load()
	}
	return n
}

func (y *sys) load(put func(string, any), dt time.Duration) {
	st := &y.b.stats
	for name, count := range map[string]uint64{
		"messages/received": st.packets.Load(), "messages/sent": st.packetsSent.Load(),
		"publish/received": st.received.Load(), "publish/sent": st.sent.Load(), "publish/dropped": st.dropped.Load(),
		"bytes/received": st.bytesReceived.Load(), "bytes/sent": st.bytesSent.Load(),
		"connections": st.connections.Load(), "sockets": st.sockets.Load(),
	} {
		l := y.loads[name]
		if l == nil {
			l = &load{}
			y.loads[name] = l
		}
		l.step(count, dt)
		for i, span := range loadSpans {
			put("load/"+name+"/"+strconv.Itoa(span)+"min", fmt.Sprintf("%.2f", l.average[i]))
		}
	}
}

// keepSys retains in memory only what the gateway says about itself, and
// reports whether p is such a message.
func (b *Broker) keepSys(p *publication, kept body) bool {
	if p.from != nil || !bytes.HasPrefix(p.topic, []byte(sysPrefix)) {
		return false
	}
	r := &b.sysRetained
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.set(retainedMessage{kept, p.qos}) // there is room: the names are few
	return true
}

// put retains one message and sends it to its subscribers.
func (y *sys) put(t *turn, name, value string) {
	topic := sysPrefix + name
	kept := appendBody(nil, topic, []byte(value), nil, t.now)
	y.b.keepSys(&publication{topic: kept.topic()}, kept)
	p := publication{topic: kept.topic(), payload: kept.payload(), qos: mqtt.AtMostOnce}
	if err := y.b.route(t, &p); err != nil {
		y.b.log.Debug("cannot publish about the broker", "topic", topic, "error", err)
	}
}
