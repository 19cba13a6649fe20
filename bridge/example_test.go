package bridge_test

import (
	"fmt"

	"tidegate/bridge"
)

func ExampleConfig_Map() {
	cfg := bridge.Config{Out: []bridge.Rule{
		{Topics: []string{"sensor/#"}, Prefix: "site/pump-house/"},
		{Topics: []string{"local/alarm/+"}, Strip: "local/"},
	}}
	for _, topic := range []string{"sensor/weather/humidity", "local/alarm/fire", "local/debug"} {
		upstream, qos, ok := cfg.Map(topic)
		fmt.Println(topic, "=>", upstream, qos, ok)
	}
	// Output:
	// sensor/weather/humidity => site/pump-house/sensor/weather/humidity 1 true
	// local/alarm/fire => alarm/fire 1 true
	// local/debug =>  0 false
}
