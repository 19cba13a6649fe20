package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// maxVerified is how many proofs are remembered: about 100 kB.
const maxVerified = 1000

// proof stands for a user name and a password that belong together.
type proof [sha256.Size]byte

// verified remembers which passwords were right, so that a fleet that comes back
// does not cost a hash for each client. It holds neither names nor passwords, only
// proofs: HMAC-SHA-256 with a key that never leaves the process. It never holds
// what was wrong.
type verified struct {
	key []byte

	mu     sync.Mutex
	proofs map[proof]struct{}
}

func newVerified() *verified {
	v := &verified{key: make([]byte, sha256.Size), proofs: make(map[proof]struct{})}
	rand.Read(v.key) // never fails: the process ends instead
	return v
}

// proof of a user name and a password. The length between them keeps "ab", "c"
// apart from "a", "bc".
func (v *verified) proof(user string, password []byte) proof {
	mac := hmac.New(sha256.New, v.key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(user))))
	mac.Write([]byte(user))
	mac.Write(password)
	return proof(mac.Sum(nil))
}

func (v *verified) has(p proof) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.proofs[p]
	return ok
}

// add remembers p. When there are too many, one goes: any, as the order of a map
// is nobody's to choose.
func (v *verified) add(p proof) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.proofs) >= maxVerified {
		for old := range v.proofs {
			delete(v.proofs, old)
			break
		}
	}
	v.proofs[p] = struct{}{}
}
