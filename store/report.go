package store

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Report is what [Inspect] has found.
type Report struct {
	Files   int      `json:"files"`   // that were looked at
	Records uint64   `json:"records"` // that are sound
	Rows    uint64   `json:"rows"`    // of tables and marks, the damaged ones included
	Damage  []Damage `json:"damage"`  // by file, the newest segment first

	// Missing is what queues say that they are owed and no file has: a segment was
	// lost, perhaps long ago, and the queue was not read to its end since.
	Missing []Missing `json:"missing,omitempty"`
}

// Missing is how many records of one queue are not there.
type Missing struct {
	Queue   uint32 `json:"queue"` // Queue.ID
	Pending uint64 `json:"pending"`
	Found   uint64 `json:"found"`
}

// maxFindings bounds what is kept of one file.
const maxFindings = 10

// Damage is what is wrong with one file.
type Damage struct {
	File       string   `json:"file"`              // below the directory
	Findings   []string `json:"findings"`          // at most 10
	More       uint64   `json:"more,omitempty"`    // findings that are left out
	Unreadable bool     `json:"unreadable"`        // what comes behind, or all of it, cannot be read
	Records    uint64   `json:"records,omitempty"` // damaged ones that were met
	AtMost     uint64   `json:"at_most,omitempty"` // unreadable: so many records belong to the file, or fewer
	Rows       uint64   `json:"rows,omitempty"`    // damaged ones that were met: sessions, retained messages, positions, marks

	first []error // for Err
}

// Err returns all that is wrong as one error, nil for a sound store.
func (r *Report) Err() error {
	var all []error
	for i := range r.Damage {
		d := &r.Damage[i]
		all = append(all, d.first...)
		if d.More > 0 {
			all = append(all, fmt.Errorf("%q: %d more findings", d.File, d.More))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("verify store: %w", errors.Join(all...))
}

// of returns what is wrong with the file at path, nil if nothing is known to be.
func (r *Report) of(dir, path string) *Damage {
	name := below(dir, path)
	for i := range r.Damage {
		if r.Damage[i].File == name {
			return &r.Damage[i]
		}
	}
	return nil
}

// add notes damage to the file at path.
func (r *Report) add(dir, path string, err error) *Damage {
	d := r.of(dir, path)
	if d == nil {
		r.Damage = append(r.Damage, Damage{File: below(dir, path)})
		d = &r.Damage[len(r.Damage)-1]
	}
	if len(d.first) == maxFindings {
		d.More++
		return d
	}
	d.first = append(d.first, err)
	d.Findings = append(d.Findings, finding(err))
	return d
}

// below is path as people know it who know dir.
func below(dir, path string) string {
	if name, err := filepath.Rel(dir, path); err == nil {
		return name
	}
	return path
}

// finding is err without the file, which stands beside it.
func finding(err error) string {
	var damage *CorruptError
	switch {
	case !errors.As(err, &damage):
		return err.Error()
	case damage.Seq == 0:
		return damage.Err.Error()
	}
	return fmt.Sprintf("record %d: %v", damage.Seq, damage.Err)
}
