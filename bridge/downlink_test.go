package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// kept is what a local broker takes from a bridge: at once, unless hold is set.
type kept struct {
	mu   sync.Mutex
	list []mqtt.Message
	hold []func(error) // what is not yet safe
	wait bool
}

func (k *kept) keep(_ context.Context, m mqtt.Message, done func(error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, m)
	if k.wait {
		k.hold = append(k.hold, done)
	} else {
		done(nil)
	}
	return nil
}

func (k *kept) text() (list []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.list {
		list = append(list, fmt.Sprintf("%s %s %d", m.Topic, m.Payload, m.QoS))
	}
	return list
}

// commander is a scripted server that has commands for the bridge.
type commander struct {
	upstream
}

// open accepts the bridge and its subscriptions.
func (c *commander) open(present bool, answer byte) (connect *packets.ConnectPacket, filters []string) {
	connect = c.connected(present)
	return connect, c.subscribed(func(string) byte { return answer })
}

// connected accepts the bridge.
func (c *commander) connected(present bool) *packets.ConnectPacket {
	connect, _ := c.read().(*packets.ConnectPacket)
	accept := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	accept.SessionPresent = present
	_ = accept.Write(c)
	return connect
}

// subscribed reads a SUBSCRIBE, gives each filter its answer, and returns them.
func (c *commander) subscribed(answer func(filter string) byte) (filters []string) {
	subscribe, _ := c.read().(*packets.SubscribePacket)
	if subscribe == nil {
		c.t.Error("the bridge does not subscribe")
		return nil
	}
	suback := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	suback.MessageID = subscribe.MessageID
	for i, f := range subscribe.Topics {
		filters = append(filters, fmt.Sprintf("%s %d", f, subscribe.Qoss[i]))
		suback.ReturnCodes = append(suback.ReturnCodes, answer(f)|subscribe.Qoss[i])
	}
	_ = suback.Write(c)
	slices.Sort(filters)
	return filters
}

func (c *commander) send(qos byte, id uint16, topic, payload string, change ...func(*packets.PublishPacket)) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	for _, f := range change {
		f(p)
	}
	_ = p.Write(c)
}

// answer reads the next packet and returns it as "PUBACK 7".
func (c *commander) answer() string {
	p := c.read()
	if p == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %d", packets.PacketNames[header(p).MessageType], p.Details().MessageID)
}

func header(p packets.ControlPacket) packets.FixedHeader {
	switch p := p.(type) {
	case *packets.PubackPacket:
		return p.FixedHeader
	case *packets.PubrecPacket:
		return p.FixedHeader
	case *packets.PubcompPacket:
		return p.FixedHeader
	case *packets.PublishPacket:
		return p.FixedHeader
	case *packets.DisconnectPacket:
		return p.FixedHeader
	}
	return packets.FixedHeader{}
}

func (c *commander) want(answers ...string) {
	c.t.Helper()
	for _, want := range answers {
		if got := c.answer(); got != want {
			c.t.Errorf("the bridge answers %s, want %s", got, want)
		}
	}
}

// stay reads on until the bridge goes.
func (c *commander) stay() {
	for c.read() != nil {
	}
}

func (c *commander) release(id uint16) {
	p := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	p.MessageID = id
	_ = p.Write(c)
}

func downConfig() Config {
	cfg := testConfig()
	cfg.In = []Rule{{Topics: []string{"command/1/#"}, Strip: "command/1/", Prefix: "actuator/", QoS: qos(2)}}
	return cfg
}

// commanded runs a bridge against a server that plays script for each connection.
func commanded(t *testing.T, cfg Config, k *kept, script func(n int, c *commander), check func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		local.keep = k.keep
		played := make(chan int, 100)
		r := newRig(t, cfg, local, piped(t, func(n int, _ string, u upstream) {
			c := &commander{upstream: u}
			script(n, c)
			played <- n
			c.stay()
		})).start()
		<-played
		synctest.Wait()
		check(r)
		r.end()
	})
}

func TestACommandIsAcknowledgedOnceItIsSafe(t *testing.T) {
	k := &kept{wait: true}
	commanded(t, downConfig(), k, func(_ int, c *commander) {
		connect, filters := c.open(false, 0)
		if connect.CleanSession || !slices.Equal(filters, []string{"command/1/# 2"}) {
			t.Errorf("clean session %v, subscribed to %q", connect.CleanSession, filters)
		}
		c.send(1, 5, "command/1/pump/set", "on")
		c.send(1, 6, "command/1/pump/set", "off")
		c.send(0, 0, "command/1/lamp/set", "on")
		synctest.Wait()
		k.mu.Lock()
		hold := k.hold
		k.mu.Unlock()
		if len(hold) != 3 {
			t.Fatalf("%d messages were published", len(hold))
		}
		silent := make(chan string)
		go func() { silent <- c.answer() }()
		synctest.Wait()
		select {
		case a := <-silent:
			t.Errorf("the bridge answers %s before the command is safe", a)
		default:
		}
		hold[1](nil) // out of order
		hold[0](nil)
		hold[2](nil)
		if a := <-silent; a != "PUBACK 5" {
			t.Errorf("the first answer is %s", a)
		}
		c.want("PUBACK 6")
	}, func(r *rig) {
		want := []string{"actuator/pump/set on 1", "actuator/pump/set off 1", "actuator/lamp/set on 0"}
		if !slices.Equal(k.text(), want) {
			t.Errorf("published %q, want %q", k.text(), want)
		}
		if in := r.Status().In; in != (Downward{Received: 3}) {
			t.Errorf("the status is %+v", in)
		}
	})
}

func TestACommandThatCannotBeKeptComesAgain(t *testing.T) {
	k := &kept{wait: true}
	cfg := downConfig()
	synctest.Test(t, func(t *testing.T) {
		local, over := newLocal(), make(chan struct{})
		local.keep = k.keep
		r := newRig(t, cfg, local, piped(t, func(n int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(n > 0, 0)
			c.send(1, 5, "command/1/pump/set", "on", func(p *packets.PublishPacket) { p.Dup = n > 0 })
			if n == 0 {
				c.want("nothing")
				return
			}
			c.want("PUBACK 5")
			close(over)
			c.stay()
		})).start()
		synctest.Wait()
		k.mu.Lock()
		k.wait = false
		failed := k.hold[0]
		k.mu.Unlock()
		failed(errors.New("the disk is full"))
		<-over
		if s := r.Status(); !strings.Contains(s.Error, "will come again: the disk is full") || s.In.Again != 1 {
			t.Errorf("the status is %+v", s)
		}
		r.end()
	})
}

// A QoS 2 message that is safe is not taken again over the next connection, until
// the server has released its identifier.
func TestExactlyOnceOverReconnects(t *testing.T) {
	k := &kept{}
	cfg := downConfig()
	synctest.Test(t, func(t *testing.T) {
		local, over := newLocal(), make(chan struct{})
		local.keep = k.keep
		again := func(p *packets.PublishPacket) { p.Dup = true }
		r := newRig(t, cfg, local, piped(t, func(n int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(n > 0 && n < 3, 0)
			switch n {
			case 0:
				c.send(2, 9, "command/1/a", "1")
				c.want("PUBREC 9") // which is lost
			case 1:
				c.send(2, 9, "command/1/a", "1", again)
				c.want("PUBREC 9")
				c.release(9)
				c.want("PUBCOMP 9")
				c.send(2, 9, "command/1/a", "2") // the identifier is used again
				c.want("PUBREC 9")
			case 2: // the server lost nothing, we were cut off before PUBREL
				c.release(9)
				c.want("PUBCOMP 9")
				c.send(2, 10, "command/1/a", "3")
				c.want("PUBREC 10")
			case 3: // it has forgotten the session
				c.send(2, 10, "command/1/a", "4")
				c.want("PUBREC 10")
				close(over)
				c.stay()
			}
		})).start()
		<-over
		want := []string{"actuator/a 1 2", "actuator/a 2 2", "actuator/a 3 2", "actuator/a 4 2"}
		if !slices.Equal(k.text(), want) {
			t.Errorf("published %q, want %q", k.text(), want)
		}
		r.end()
	})
}

// Servers that know nothing of each other give the same numbers to other messages.
func TestAnotherServersNumbersAreNew(t *testing.T) {
	k := &kept{}
	cfg := downConfig()
	cfg.Servers = []string{"tcp://one:1883", "tcp://two:1883"}
	synctest.Test(t, func(t *testing.T) {
		local, over := newLocal(), make(chan struct{})
		local.keep = k.keep
		r := newRig(t, cfg, local, piped(t, func(n int, address string, u upstream) {
			c := &commander{upstream: u}
			c.open(true, 0)
			switch n {
			case 0:
				c.send(2, 9, "command/1/a", address)
				c.send(2, 10, "command/1/a", "in flight")
				c.want("PUBREC 9", "PUBREC 10")
			case 1:
				c.send(2, 9, "command/1/a", address)
				c.send(2, 10, "command/1/a", "in flight", func(p *packets.PublishPacket) { p.Dup = true }) // of a session that both have
				c.want("PUBREC 9", "PUBREC 10")
				close(over)
				c.stay()
			}
		})).start()
		<-over
		if want := []string{"actuator/a one:1883 2", "actuator/a in flight 2", "actuator/a two:1883 2"}; !slices.Equal(k.text(), want) {
			t.Errorf("published %q, want %q", k.text(), want)
		}
		r.end()
	})
}

func TestWhatIsNotCarriedIsAcknowledged(t *testing.T) {
	k := &kept{}
	cfg := downConfig()
	cfg.MaxPacketSize = minPacketSize
	cfg.In = append(cfg.In, Rule{Topics: []string{"bare/#"}, Strip: "bare/"})
	commanded(t, cfg, k, func(_ int, c *commander) {
		c.open(false, 0)
		c.send(1, 1, "command/1/a", strings.Repeat("x", 5000))
		c.send(2, 2, "command/1/a", strings.Repeat("x", 5000))
		c.send(1, 3, "other", "x")
		c.send(1, 4, "command/1/"+strings.Repeat("actuator/", 2)+"x", "x")
		c.send(1, 5, "bare/$bridge/cloud/again/a", "x")
		c.send(1, 6, "command/1/a", "x")
		c.want("PUBACK 1", "PUBREC 2", "PUBACK 3", "PUBACK 4", "PUBACK 5", "PUBACK 6")
	}, func(r *rig) {
		if want := []string{"actuator/a x 1"}; !slices.Equal(k.text(), want) {
			t.Errorf("published %q, want %q", k.text(), want)
		}
		if in := r.Status().In; in != (Downward{Received: 1, Refused: 4, Unmatched: 1}) {
			t.Errorf("the status is %+v", in)
		}
		if n := r.log.count("level=WARN"); n != 3 { // one for each filter, one of them none
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

// What MQTT 3.1.1 sends back is dropped, as often as it was sent.
func TestEchoesAreDropped(t *testing.T) {
	k := &kept{}
	cfg := testConfig()
	cfg.In = []Rule{{Topics: []string{"site/#"}, Strip: "site/", Prefix: "from/"}}
	synctest.Test(t, func(t *testing.T) {
		local, over := newLocal(), make(chan struct{})
		local.keep = k.keep
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(false, 0)
			local.add(readings(1)...)
			p := c.read().(*packets.PublishPacket)
			c.ack(p)
			for id := range uint16(2) {
				c.send(1, 1+id, p.TopicName, string(p.Payload))
				c.want(fmt.Sprintf("PUBACK %d", 1+id))
			}
			close(over)
			c.stay()
		})).start()
		<-over
		if want := []string{"from/sensor/a a 1"}; !slices.Equal(k.text(), want) {
			t.Errorf("published %q, want %q", k.text(), want)
		}
		if in := r.Status().In; in != (Downward{Received: 1, Echoes: 1}) {
			t.Errorf("the status is %+v", in)
		}
		r.end()
	})
}

// A server that kept commands while we were away does not say how old they are.
func TestOldCommandsAreNotCarried(t *testing.T) {
	k := &kept{}
	cfg := downConfig()
	cfg.In[0].ValidFor = units.Duration(10 * time.Minute)
	cfg.In = append(cfg.In, Rule{Topics: []string{"any/#"}})
	cfg.Backoff = Backoff{seconds(1), seconds(60)}
	synctest.Test(t, func(t *testing.T) {
		local, over := newLocal(), make(chan struct{})
		local.keep = k.keep
		var down atomic.Int64 // until then, the server is down
		server := piped(t, func(n int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(true, 0)
			id := uint16(0)
			send := func(topic, payload string, change ...func(*packets.PublishPacket)) {
				id++
				c.send(1, id, topic, payload, change...)
				c.want(fmt.Sprintf("PUBACK %d", id))
			}
			send("command/1/a", fmt.Sprintf("kept %d", n))
			send("any/a", "kept")
			time.Sleep(quietTime)
			send("command/1/a", fmt.Sprintf("new %d", n))
			send("command/1/a", "retained", func(p *packets.PublishPacket) { p.Retain = true })
			switch n {
			case 1:
				down.Store(time.Now().Add(time.Hour).UnixNano())
			case 3:
				close(over)
				c.stay()
			}
		})
		r := newRig(t, cfg, local, func(ctx context.Context, network, address string) (net.Conn, error) {
			if time.Now().UnixNano() < down.Load() {
				return nil, syscall.ECONNREFUSED
			}
			return server(ctx, network, address)
		}).start()
		<-over
		synctest.Wait()
		var got []string
		for _, line := range k.text() {
			if strings.HasPrefix(line, "actuator") {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(line, "actuator/a "), " 1"))
			}
		}
		// The first connection follows an absence that nothing is known of; so
		// does the one after an hour. The others were back within ten minutes.
		want := []string{"new 0", "kept 1", "new 1", "new 2", "kept 3", "new 3"}
		if !slices.Equal(got, want) {
			t.Errorf("carried %q, want %q", got, want)
		}
		if s := r.Status(); s.In.Expired != 2+4 {
			t.Errorf("expired %d", s.In.Expired)
		}
		if e := k.list[0].Expiry + k.list[1].Expiry; e != 10*time.Minute {
			t.Errorf("the commands expire here after %v", e)
		}
		r.end()
	})
}

// What goes up does not suffer if nothing may come down.
func TestARefusedSubscription(t *testing.T) {
	local := newLocal()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, downConfig(), local, piped(t, func(_ int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(false, 0x80)
			for p := c.publish(); p != nil; p = c.publish() {
				c.ack(p)
			}
		})).start()
		synctest.Wait()
		local.add(readings(3)...)
		<-local.empty()
		if s := r.Status(); s.State != Up || !strings.Contains(s.Error, `refuses the subscription to "command/1/#"`) {
			t.Errorf("the status is %+v", s)
		}
		r.end()
	})
}

// A server that sends and sends is read no further than maxUnsafe messages
// beyond what is safe here, whatever it sends.
func TestUnsafeMessagesAreBounded(t *testing.T) {
	k := &kept{wait: true}
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		local.keep = k.keep
		r := newRig(t, downConfig(), local, piped(t, func(_ int, _ string, u upstream) {
			c := &commander{upstream: u}
			c.open(false, 0)
			for id := range uint16(4 * maxUnsafe) {
				c.send(1, 1+id, "command/1/a", "x")
			}
			c.stay()
		})).start()
		synctest.Wait()
		if n := len(k.text()); n > maxUnsafe+1 {
			t.Errorf("%d messages are taken, the bound is %d", n, maxUnsafe)
		}
		if took := r.end(); took > 5*time.Second {
			t.Errorf("it took %v to stop", took)
		}
	})
}
