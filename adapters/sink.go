package adapters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tidegate/mqtt"
)

// sink publishes what the adapter of a supervisor emits.
type sink struct{ *Supervisor }

// Emit implements [Sink]. A reading that becomes no message is counted and
// keeps nobody from going on; only a publisher that takes nothing more does.
func (s sink) Emit(ctx context.Context, readings ...Reading) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	for _, r := range readings {
		err := s.emit(ctx, r)
		reject, rejected := errors.AsType[*RejectError](err)
		if err != nil && !rejected {
			return err
		}
		s.count(reject)
		if rejected {
			s.log.Debug("reading is refused", "reason", reject.Reason, "error", err)
		}
	}
	return nil
}

func (s sink) emit(ctx context.Context, r Reading) error {
	m, err := s.mapping.Message(r)
	if err != nil {
		return err
	}
	err = s.publisher.PublishAsync(ctx, m, nil)
	switch {
	case errors.Is(err, mqtt.ErrTooLarge):
		return &RejectError{ReasonTooLarge, fmt.Sprintf("publish %q: %v", m.Topic, err)}
	case errors.Is(err, mqtt.ErrInvalidTopic):
		return &RejectError{ReasonTopic, fmt.Sprintf("publish %q: %v", m.Topic, err)}
	case err != nil:
		return fmt.Errorf("publish %q: %w", m.Topic, err)
	}
	return nil
}

// count counts a reading, which was refused if reject is not nil.
func (s sink) count(reject *RejectError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Readings++
	s.status.LastReading = time.Now()
	if reject == nil {
		s.status.Published++
		return
	}
	if s.status.Rejected == nil {
		s.status.Rejected = make(map[string]uint64)
	}
	s.status.Rejected[reject.Reason]++
}
