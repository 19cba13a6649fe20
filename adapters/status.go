package adapters

import (
	"maps"
	"time"
)

// State says whether the device of an adapter is there.
type State string

// The states of an adapter; also the payloads of its status topic.
const (
	Offline State = "offline"
	Online  State = "online"
)

// Status is what is known about an adapter at one moment.
type Status struct {
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	Device      string            `json:"device,omitempty"`
	State       State             `json:"state"`
	Since       time.Time         `json:"since"`                 // of the last change of State
	LastError   string            `json:"last_error,omitempty"`  // what failed last and what to do; stays after it has healed
	Frames      uint64            `json:"frames"`                // frames that were understood
	Rejected    map[string]uint64 `json:"rejected,omitempty"`    // frames and readings that were refused, by reason
	Readings    uint64            `json:"readings"`              // that the adapter emitted
	Published   uint64            `json:"published"`             // readings that became messages
	LastReading time.Time         `json:"last_reading,omitzero"` // when it came in
}

// Status returns the state of the adapter. It may be called from any goroutine.
func (s *Supervisor) Status() Status {
	report := s.report() // before the lock: it calls the adapter
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Device, status.Frames = report.Device, report.Frames
	status.Rejected = maps.Clone(s.status.Rejected)
	for reason, n := range report.Rejected {
		if status.Rejected == nil {
			status.Rejected = make(map[string]uint64)
		}
		status.Rejected[reason] += n
	}
	return status
}

func (s *Supervisor) report() Report {
	if r, ok := s.adapter.(Reporter); ok {
		return r.Report()
	}
	return Report{}
}
