package broker_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"

	"tidegate/broker"
	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/mqtt/packet"
)

// deviceKeys lets devices in that have the key of their name, which never travels:
// the broker sends a number that was never used before, and the device its name,
// a zero byte and the HMAC of name and number.
type deviceKeys map[string][]byte

// Begin implements [auth.Method].
func (keys deviceKeys) Begin(auth.Request) auth.Step {
	var nonce []byte
	return func(_ context.Context, data []byte) (auth.Reply, error) {
		if nonce == nil {
			nonce = []byte(rand.Text())
			return auth.Reply{Data: nonce}, nil
		}
		for name, key := range keys {
			if hmac.Equal(data, proof(name, key, nonce)) {
				return auth.Reply{Done: true, User: name}, nil
			}
		}
		return auth.Reply{}, auth.ErrBadCredentials
	}
}

func proof(name string, key, nonce []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(name))
	h.Write(nonce)
	return h.Sum([]byte(name + "\x00"))
}

// device connects a client to b that proves to be name with key.
func device(b *broker.Broker, name string, key []byte) (*client.Conn, error) {
	near, far := net.Pipe()
	go b.ServeConn(far)
	method := packet.Properties(nil).AppendText(packet.PropAuthMethod, "HMAC-SHA-256")
	return client.Connect(context.Background(), near, client.Options{
		Version: packet.V5, ClientID: name, CleanSession: true, Properties: method,
		Auth: func(a packet.Auth) (packet.Auth, error) {
			nonce, _ := a.Properties.Bytes(packet.PropAuthData)
			answer := method.AppendText(packet.PropAuthData, string(proof(name, key, nonce)))
			return packet.Auth{Reason: packet.ReasonContinueAuthentication, Properties: answer}, nil
		},
	})
}

// A challenge and its response. Who the device has proved to be is its user name
// from then on, for the Authorizer or the ACL file.
func ExampleHooks_method() {
	keys := deviceKeys{"pump-7": []byte("correct horse")}
	b, stop := embedded(broker.Hooks{
		Methods:    map[string]auth.Method{"HMAC-SHA-256": keys},
		Authorizer: ownTopics{},
	})
	defer stop()

	pump, err := device(b, "pump-7", []byte("correct horse"))
	fmt.Println("pump-7:", err)
	pump.Close()
	_, err = device(b, "pump-7", []byte("battery staple"))
	var refused *client.RefusedError
	fmt.Println("somebody else:", errors.As(err, &refused) && refused.Reason == packet.ReasonBadUsernameOrPassword)
	// Output:
	// pump-7: <nil>
	// somebody else: true
}
