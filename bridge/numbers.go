package bridge

import "sync"

// numbers are those that a server has given to messages. They have two bytes, which
// bounds how many there are.
type numbers struct {
	mu   sync.Mutex
	list map[uint16]struct{}
}

func (n *numbers) add(id uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.list == nil {
		n.list = make(map[uint16]struct{})
	}
	n.list[id] = struct{}{}
}

func (n *numbers) has(id uint16) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.list[id]
	return ok
}

// remove reports whether id was there.
func (n *numbers) remove(id uint16) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.list[id]
	delete(n.list, id)
	return ok
}

func (n *numbers) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.list)
}
