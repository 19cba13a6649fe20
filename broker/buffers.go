package broker

import (
	"sync"
	"unsafe"
)

// Buffers for what is read and written are taken from pools and given back as
// soon as they are empty, so that an idle connection has none. A pool has
// buffers of one size.
const (
	smallBuffer = 1 << 10
	bufferSteps = 5 // from one size to the next it is four times: up to 256 KiB
)

var bufferPools [bufferSteps]sync.Pool

// newBuffer returns an empty buffer with room for n bytes or more.
func newBuffer(n int) []byte {
	size := smallBuffer
	for i := range bufferPools {
		if n <= size {
			if first := bufferPools[i].Get(); first != nil {
				return unsafe.Slice(first.(*byte), size)[:0]
			}
			return make([]byte, 0, size)
		}
		size *= 4
	}
	return make([]byte, 0, n)
}

// giveBack takes a buffer that nobody uses any more. One that came from elsewhere
// is left to the garbage collector.
func giveBack(b []byte) {
	size := smallBuffer
	for i := range bufferPools {
		if cap(b) == size {
			bufferPools[i].Put(unsafe.SliceData(b)) // a pointer, so that nothing is allocated
			return
		}
		size *= 4
	}
}

// grow returns b with room for n bytes more.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	grown := append(newBuffer(max(len(b)+n, 2*cap(b))), b...)
	giveBack(b)
	return grown
}
