package broker

import (
	"errors"
	"testing"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Clients may read the dead letters of bridges. They forge none and put nothing past a
// bridge's rules, not with a will either, whoever may do anything.
func TestClientsDoNotPublishForBridges(t *testing.T) {
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		t.Run("MQTT "+version.String(), func(t *testing.T) {
			d := newBed(t, nil)
			sub := d.dial("sub", nil)
			sub.subscribe("$bridge/#", 1)
			pub := d.dial("pub", func(o *client.Options) { o.Version = version })
			for _, topic := range []string{"$bridge/cloud/again/a", "$bridge/cloud/dead", "$bridge/"} {
				err := pub.Publish(d.ctx(), mqtt.Message{Topic: topic, Payload: []byte("forged"), QoS: 1, Retain: true})
				var told *client.ReasonError
				if version == packet.V5 && (!errors.As(err, &told) || told.Reason != packet.ReasonNotAuthorized) {
					t.Errorf("publish to %s: %v, want not authorized", topic, err)
				}
			}
			d.refused(client.Options{ClientID: "w", Will: &mqtt.Message{Topic: "$bridge/cloud/dead/a", Payload: []byte("forged")}},
				packet.RefusedNotAuthorized, packet.ReasonNotAuthorized)
			publishText(t, d, "$bridge/cloud/dead/a", "by the bridge")
			sub.want("$bridge/cloud/dead/a", "by the bridge", 1)
			sub.wantNothing()
			if n := d.b.Status(); n.PublicationsDenied != 3 || n.Retained != 0 {
				t.Errorf("%d denied and %d kept, want 3 and 0", n.PublicationsDenied, n.Retained)
			}
		})
	}
}
