package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"tidegate/broker"
	"tidegate/internal/balance"
	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
)

func TestLossReportHasTheLatestRowsAndAllSums(t *testing.T) {
	var list []broker.Loss
	for i := range 2 * maxLossRows {
		list = append(list, broker.Loss{Session: fmt.Sprint(i), Count: 2, Bytes: 3, Last: time.Unix(int64(i), 0)})
	}
	r := newLossReport(list)
	if r.Messages != 4*maxLossRows || r.Bytes != 6*maxLossRows || len(r.Losses) != maxLossRows || r.Losses[0].Session != fmt.Sprint(2*maxLossRows-1) {
		t.Errorf("%d messages, %d bytes, %d rows, the first is %+v", r.Messages, r.Bytes, len(r.Losses), r.Losses[0])
	}
}

func TestLossesAreRetainedOnTheirTopic(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := newGateway(cloudConfig(t.TempDir()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := g.broker.Listen(); err != nil {
		t.Fatal(err)
	}
	core := newRoom()
	defer core.stop()
	core.run(func(ctx context.Context) {
		if err := g.broker.Serve(ctx); err != nil {
			t.Error(err)
		}
		balance.Check(t, g.broker)
	})
	got := make(chan client.Message, 1)
	dial := func(clean bool, filter string) *client.Conn {
		c, err := client.Dial(ctx, g.mqttAddr().String(), client.Options{ClientID: "c", CleanSession: clean, Handler: func(m client.Message) { got <- m }})
		if err == nil {
			_, err = c.Subscribe(ctx, mqtt.Subscription{Filter: filter, QoS: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dial(false, "a").Close()
	if err := g.broker.Publish(ctx, mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	dial(true, "b").Close() // the session ends with what it is owed
	reporter, tick := newRoom(), make(chan time.Time)
	reporter.run(func(ctx context.Context) { g.reportLosses(ctx, tick) })
	tick <- time.Time{} // the first report is out
	reporter.stop()
	defer dial(true, "gateway/+/loss").Close()
	var r lossReport
	m := <-got
	if err := json.Unmarshal(m.Payload, &r); err != nil || m.Topic != "gateway/cloud/loss" || !m.Retain {
		t.Fatalf("got %+v, %v", m, err)
	}
	if r.Messages != 1 || len(r.Losses) != 1 || r.Losses[0].Session != "c" || r.Losses[0].Reason != "session_ended" {
		t.Errorf("the report is %s", m.Payload)
	}
}
