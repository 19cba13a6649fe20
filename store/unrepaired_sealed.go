package store

import "errors"

// repairOrLeave repairs the damaged segment g, which takes no records, or if there is
// no room for that has it read as it is. The caller holds commit.
func (s *Store) repairOrLeave(g *segment, damage error) error {
	why := s.roomFor(fileSize(g.path))
	if why == nil {
		why = s.repair(g, damage)
	}
	if why == nil {
		return nil
	}
	return s.leaveSealed(g, damage, why)
}

// leaveSealed has g read as it is, because it could not be written anew. That is one
// segment at a time, because an entry is kept for each of its records: another is found
// damaged again when it is read again. The caller holds commit.
func (s *Store) leaveSealed(g *segment, damage, why error) error {
	v, err := openSalvage(g.path)
	if err != nil {
		return errors.Join(why, err)
	}
	u := &unrepaired{segment: g, damage: damage, why: why, salvage: v, seqs: v.between(g.first, s.lastOf(g))}
	s.mu.Lock()
	old := s.sealedAsIs
	s.sealedAsIs = u
	s.mu.Unlock()
	if old != nil {
		old.close()
	}
	if !g.left {
		g.left = true
		s.log.Error("store: there is no room to write a damaged segment anew; what it still holds is read until there is", "file", g.path, "damage", damage, "error", why)
	}
	return nil
}

// close waits for whoever reads. The next one is told of the damage again.
func (u *unrepaired) close() {
	u.reading.Lock()
	defer u.reading.Unlock()
	u.closed = true
	u.salvage.close()
}

// dropAsIs lets go of what is known of g, which is no longer in the chain.
func (s *Store) dropAsIs(g *segment) {
	s.mu.Lock()
	u := s.sealedAsIs
	if u == nil || u.segment != g {
		s.mu.Unlock()
		return
	}
	s.sealedAsIs = nil
	s.mu.Unlock()
	u.close()
}

// mendSealed repairs the segment that is read as it is, if there is room by now.
func (s *Store) mendSealed() {
	s.mu.Lock()
	u := s.sealedAsIs
	s.mu.Unlock()
	if u == nil {
		return
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	if closed, in := s.inChain(u.segment); closed || !in || s.roomFor(fileSize(u.path)) != nil {
		return
	}
	if s.repair(u.segment, u.damage) == nil { // else the next look tries again
		s.log.Info("store: there is room for a damaged segment", "file", u.path)
	}
}
