package broker

import (
	"reflect"
	"testing"
	"time"

	"tidegate/mqtt"
)

// What MQTT 5 lets a message carry reaches an inbox, from memory and from disk.
func TestPropertiesReachAnInbox(t *testing.T) {
	sent := mqtt.Message{
		Topic: "a", Payload: []byte("x"), QoS: mqtt.AtLeastOnce, Expiry: time.Hour,
		Properties: &mqtt.Properties{
			UTF8: true, ContentType: "text/plain", ResponseTopic: "answer", CorrelationData: []byte{0, 1},
			User: []mqtt.UserProperty{{Name: "k", Value: "1"}, {Name: "k", Value: "2"}},
		},
	}
	plain := mqtt.Message{Topic: "b", Payload: []byte("y"), QoS: mqtt.AtLeastOnce}
	d := newBed(t, nil)
	for _, restart := range []bool{false, true} {
		in, err := d.b.OpenInbox(d.ctx(), "in", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "#", QoS: mqtt.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		if !restart {
			for _, m := range []mqtt.Message{sent, plain} {
				if err := d.b.Publish(d.ctx(), m); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, want := range []mqtt.Message{sent, plain} {
			got, err := in.Recv(d.ctx())
			if err != nil {
				t.Fatal(err)
			}
			if left := want.Expiry - got.Expiry; left < 0 || left > time.Minute {
				t.Errorf("restarted %v: expires in %v, want a little less than %v", restart, got.Expiry, want.Expiry)
			}
			if got.Expiry = want.Expiry; !reflect.DeepEqual(got.Message, want) {
				t.Errorf("restarted %v: got %+v, want %+v", restart, got.Message, want)
			}
		}
		in.Close()
		if !restart {
			d.restart()
		}
	}
}
