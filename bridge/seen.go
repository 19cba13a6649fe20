package bridge

import "sync"

// seen keeps, over the links of one session, the packet identifiers of what the
// server sent and has not released: what came at QoS 2 and is safe is not taken
// again (MQTT 3.1.1, section 4.3.3), and what was cut has no payload. Identifiers
// have two bytes, which bounds it. A restart of the gateway forgets it, see
// TestExactlyOnceOverRestarts for what that costs.
type seen struct {
	mu   sync.Mutex
	safe map[uint16]struct{}
	cut  map[uint16]struct{}
	lost uint64 // messages that were cut
}

func (s *seen) has(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.safe[id]
	return ok
}

// take notes that the message is safe.
func (s *seen) take(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.safe == nil {
		s.safe = make(map[uint16]struct{})
	}
	s.safe[id] = struct{}{}
}

// release notes that the server will not send the message again.
func (s *seen) release(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.safe, id)
}

// cutOff notes that the message was too large; 0 is one at QoS 0.
func (s *seen) cutOff(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost++
	if id == 0 {
		return
	}
	if s.cut == nil {
		s.cut = make(map[uint16]struct{})
	}
	s.cut[id] = struct{}{}
}

// wasCut reports whether the message that comes now was cut.
func (s *seen) wasCut(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.cut[id]
	delete(s.cut, id)
	return ok
}

// forget begins a new session.
func (s *seen) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.safe)
	clear(s.cut)
}
