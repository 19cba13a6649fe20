package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

const (
	connectTimeout = 10 * time.Second
	keepAlive      = time.Minute
)

// connectFlags say how to reach a broker. Names are those of mosquitto_pub and
// mosquitto_sub.
type connectFlags struct {
	Host     string
	Port     uint16
	Username string
	Password string
	ID       string
	Protocol string
}

func (f *connectFlags) define(p *params) {
	p.StringVarP(&f.Host, "host", "h", "localhost", "`HOST` of the broker.")
	p.Uint16VarP(&f.Port, "port", "p", 1883, "`PORT` of the broker.")
	p.StringVarP(&f.Username, "username", "u", "", "User `NAME`.")
	p.StringVarP(&f.Password, "pw", "P", "", "`PASSWORD` of the user.")
	p.StringVarP(&f.ID, "id", "i", "", "Client `ID`. Default: the broker chooses one.")
	chosen(p, &f.Protocol, "protocol-version", "V", "`VERSION` of MQTT: mqttv5, mqttv311 or mqttv31.", "mqttv311", "mqttv5", "mqttv31", "5", "311", "31")
}

// qosFlag is the -q flag.
type qosFlag struct {
	QoS byte
}

func (f *qosFlag) define(p *params) {
	chosen(p, &f.QoS, "qos", "q", "Quality of service.", 0, 1, 2)
}

func (f qosFlag) level() mqtt.QoS { return mqtt.QoS(f.QoS) }

func (f connectFlags) isV5() bool { return strings.TrimPrefix(f.Protocol, "mqttv") == "5" }

// dial connects as the flags say. What o holds beside that is kept.
func (f connectFlags) dial(ctx context.Context, o client.Options) (*client.Conn, error) {
	o.ClientID, o.Username, o.Password, o.KeepAlive = f.ID, f.Username, f.Password, keepAlive
	switch strings.TrimPrefix(f.Protocol, "mqttv") {
	case "5":
		o.Version = packet.V5
		if !o.CleanSession { // MQTT 5 asks for how long
			o.Properties = o.Properties.AppendUint(packet.PropSessionExpiry, math.MaxUint32)
		}
	case "31":
		o.Version = packet.V31
		if o.ClientID == "" { // MQTT 3.1 knows no empty one
			o.ClientID = fmt.Sprintf("%s-%d", program, os.Getpid())
		}
	}
	addr := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
	within, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := client.Dial(within, addr, o)
	var unknown *net.DNSError
	switch {
	case err == nil || ctx.Err() != nil:
		return conn, err
	case within.Err() != nil:
		return nil, fmt.Errorf("no answer from %s for %s: is the host up, and no firewall between?", addr, connectTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nothing listens at %s: is the broker running? -h and -p name another one", addr)
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("the host %q is not known: %w", f.Host, err)
	}
	return nil, err
}
