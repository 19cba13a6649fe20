// Package adapters turns what devices measure into MQTT messages.
//
// There are five nouns. An [Adapter] talks to one device; it knows nothing of
// MQTT. A [Reading] is one value that it measured. A [Sink] is where it hands
// readings in. A [Mapping] makes a message of a reading: unit, scale, limits,
// topic, payload. A [Supervisor] runs one adapter for as long as the gateway
// runs: it publishes what the adapter emits, says whether the device is there,
// survives its crashes and starts it again.
//
// Each kind of adapter is a folder of its own with a configuration that is an
// [Entry]: one [Config] that all kinds have in common, and what the kind adds.
//
// The package starts no goroutine. [Supervisor.Run] uses its caller's, and so
// does the adapter; what an adapter starts must have ended when its Run returns.
package adapters
