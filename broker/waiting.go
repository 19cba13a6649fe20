package broker

import "tidegate/mqtt"

// Waiting returns what the inbox called name has not acknowledged.
func (b *Broker) Waiting(name string) mqtt.Waiting {
	b.mu.Lock()
	s := b.sessions[inboxKey(name)]
	b.mu.Unlock()
	if s == nil {
		return mqtt.Waiting{}
	}
	w := mqtt.Waiting{Messages: s.owed.Load()}
	if w.Messages == 0 {
		return w
	}
	w.Oldest = max(0, s.oldest())
	return w
}
