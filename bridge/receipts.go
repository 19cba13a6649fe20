package bridge

import "sync"

// promise is a receipt that the link itself fulfils.
type promise struct {
	done chan struct{}
	err  error // read after done
}

func newPromise() *promise { return &promise{done: make(chan struct{})} }

func (r *promise) Done() <-chan struct{} { return r.done }

func (r *promise) Error() error { return r.err }

// finish must be called once.
func (r *promise) finish(err error) {
	r.err = err
	close(r.done)
}

// receipts are those of what was published over one link in MQTT 3.1.1, by packet
// identifier. The link keeps far fewer messages under way than there are identifiers, so
// that there is a free one.
type receipts struct {
	first uint16 // the lowest identifier to be given out; those below are paho's

	mu   sync.Mutex
	last uint16
	list map[uint16]*promise
}

func newReceipts(first uint16) *receipts {
	return &receipts{first: first, last: first - 1, list: make(map[uint16]*promise)}
}

// add gives r an identifier.
func (s *receipts) add(r *promise) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.last = max(s.last+1, s.first); s.list[s.last] != nil; s.last = max(s.last+1, s.first) {
	}
	s.list[s.last] = r
	return s.last
}

// finish finishes the receipt of id, if there is one.
func (s *receipts) finish(id uint16) {
	s.mu.Lock()
	r := s.list[id]
	delete(s.list, id)
	s.mu.Unlock()
	if r != nil {
		r.finish(nil)
	}
}
