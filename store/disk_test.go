package store

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sector is what a disk writes as a whole.
const sector = 512

// disk is the part of a file system below root. It keeps apart what a power cut
// leaves for certain and what it may take: every sector of a file that was not
// synced, and every name in a directory that was not.
type disk struct {
	root    string
	rng     *rand.Rand
	names   map[string]*node // as the process sees them
	durable map[string]*node // as they are if none of moves is on the disk
	moves   []move           // not synced
	open    map[int]*node    // by descriptor
}

// node is a file or a directory, whatever its name.
type node struct {
	path    string // of a directory, "" for a file
	synced  []byte
	pending []change // of the content, not synced
}

// change writes data at off, or without data sets the length to off.
type change struct {
	off  int64
	data []byte
}

// move makes a name for a node, removes a name, or does both at once.
type move struct {
	node         *node
	made, ceased string
}

func newDisk(root string, rng *rand.Rand) *disk {
	top := &node{path: root}
	return &disk{
		root: root, rng: rng, open: make(map[int]*node),
		names: map[string]*node{root: top}, durable: map[string]*node{root: top},
	}
}

func (d *disk) move(m move) {
	d.moves = append(d.moves, m)
	d.names = m.apply(d.names)
}

// apply changes names in place.
func (m move) apply(names map[string]*node) map[string]*node {
	if m.ceased != "" {
		delete(names, m.ceased)
	}
	if m.made != "" {
		names[m.made] = m.node
	}
	return names
}

// in reports whether the move is part of the directory dir.
func (m move) in(dir string) bool {
	return m.made != "" && filepath.Dir(m.made) == dir || m.ceased != "" && filepath.Dir(m.ceased) == dir
}

// play makes the change that the call c is. After a sync that failed, half of what
// it was for is lost: the kernel takes it for clean and never writes it again.
func (d *disk) play(c syscallLine) {
	if c.result < 0 {
		if n := d.open[d.failedSync(c)]; n != nil && n.path == "" {
			n.synced, n.pending = n.content(func() bool { return d.rng.IntN(2) == 0 }), nil
		}
		return
	}
	switch c.name {
	case "openat":
		d.openat(c)
	case "mkdirat":
		if path, ok := d.below(c.text(1)); ok {
			d.move(move{node: &node{path: path}, made: path})
		}
	case "unlinkat":
		if path, ok := d.below(c.text(1)); ok {
			d.move(move{ceased: path})
		}
	case "renameat":
		from, _ := d.below(c.text(1))
		if to, ok := d.below(c.text(3)); ok {
			d.move(move{node: d.names[from], made: to, ceased: from})
		}
	default:
		if n := d.open[c.number(0)]; n != nil {
			d.content(n, c)
		}
	}
}

// failedSync returns the descriptor that could not be synced, -1 if c is something else.
func (d *disk) failedSync(c syscallLine) int {
	if c.syncs() {
		return c.number(0)
	}
	return -1
}

func (d *disk) below(path string) (string, bool) {
	return path, path == d.root || strings.HasPrefix(path, d.root+"/")
}

func (d *disk) openat(c syscallLine) {
	delete(d.open, c.result)
	path, ok := d.below(c.text(1))
	if !ok {
		return
	}
	n := d.names[path]
	if n == nil {
		n = &node{}
		d.move(move{node: n, made: path})
	}
	if strings.Contains(c.args[2], "O_TRUNC") {
		n.pending = append(n.pending, change{})
	}
	d.open[c.result] = n
}

func (d *disk) content(n *node, c syscallLine) {
	switch c.name {
	case "pwrite64":
		n.pending = append(n.pending, change{int64(c.number(3)), []byte(c.text(1))[:c.result]})
	case "ftruncate":
		n.pending = append(n.pending, change{off: int64(c.number(1))})
	case "fsync", "fdatasync":
		d.sync(n)
	}
}

func (d *disk) sync(n *node) {
	if n.path == "" {
		n.synced, n.pending = n.content(func() bool { return true }), nil
		return
	}
	d.moves = slices.DeleteFunc(d.moves, func(m move) bool {
		if m.in(n.path) {
			m.apply(d.durable)
		}
		return m.in(n.path)
	})
}

// content returns what a power cut leaves of the file if each sector and each
// change of its length is on the disk as kept says.
func (n *node) content(kept func() bool) []byte {
	p := slices.Clone(n.synced)
	for _, c := range n.pending {
		if c.data == nil {
			if kept() {
				p = resize(p, c.off)
			}
			continue
		}
		for off := c.off; len(c.data) > 0; off = c.off {
			size := min(sector-off%sector, int64(len(c.data)))
			if kept() {
				p = resize(p, max(int64(len(p)), off+size))
				copy(p[off:], c.data[:size])
			}
			c.off, c.data = off+size, c.data[size:]
		}
	}
	return p
}

func resize(p []byte, size int64) []byte {
	if size <= int64(len(p)) {
		return p[:size]
	}
	return append(p, make([]byte, size-int64(len(p)))...)
}

// cut writes what a power cut might leave to the empty directory dir.
func (d *disk) cut(t *testing.T, dir string) {
	t.Helper()
	keep := func() func() bool { // all, none, few, half or most
		p := []float64{0, 1, 0.1, 0.5, 0.9}[d.rng.IntN(5)]
		return func() bool { return d.rng.Float64() < p }
	}
	names, sectors := maps.Clone(d.durable), keep()
	for kept, i := keep(), 0; i < len(d.moves); i++ {
		if kept() {
			d.moves[i].apply(names)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		to := filepath.Join(dir, strings.TrimPrefix(path, d.root))
		if _, err := os.Stat(filepath.Dir(to)); path == d.root || err != nil {
			continue // it is in a directory that is not there
		}
		var err error
		if n := names[path]; n.path != "" {
			err = os.Mkdir(to, 0o700)
		} else {
			err = os.WriteFile(to, n.content(sectors), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
