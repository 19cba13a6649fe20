package store

import (
	"os"
	"testing"
)

// The newest segment, or the whole journal, is gone: that is said, no number is used
// twice, and the next commit starts anew.
func TestNewestSegmentIsMissing(t *testing.T) {
	for name, from := range map[string]int{"the newest": -1, "the newest two": -2, "all": 0} {
		t.Run(name, func(t *testing.T) {
			newest, left := "", 0
			dir := damaged(t, func(_ string, segments []string) {
				newest, left = segments[len(segments)-1], (len(segments)+from)%len(segments)
				for _, path := range segments[left:] {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			})
			if r, err := Inspect(dir); err != nil || r.of(dir, newest) == nil || !r.of(dir, newest).Unreadable {
				t.Errorf("verify says %+v, %v", r, err)
			}
			log := &logLines{}
			s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.FilesMissing != 1 || !st.TailLost || log.count("is missing") != 1 || st.LastSeq < lossGap {
				t.Errorf("%+v; log: %s", st, log.buf.String())
			}
			closeTest(t, s)
			mustSurvive(t, dir, log)
			if n := log.count("is missing"); n != 1+min(left, 1) { // until another one is begun, which is at once if there is none
				t.Errorf("it was said %d times: %s", n, log.buf.String())
			}
			if s = openTest(t, dir, Options{SegmentSize: small}); s.Stats().FilesMissing != 0 {
				t.Errorf("it is missed for ever: %+v", s.Stats())
			}
		})
	}
}

// A name of a table has changed in one bit: its rows are there.
func TestTableWithADamagedName(t *testing.T) {
	for _, name := range []string{"losses", "sessions", "t"} {
		dir := damaged(t, func(state string, _ []string) { flip(t, state, name+"\x00") })
		log := &logLines{}
		s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"losses", "sessions", "t"} {
			rows := make(map[string]string)
			if err := s.Rows(name, into(rows)); err != nil || len(rows) != 1 {
				t.Errorf("table %q has %v, %v", name, rows, err)
			}
		}
		if log.count("set aside") != 1 {
			t.Errorf("log: %s", log.buf.String())
		}
		closeTest(t, s)
		if err := Verify(dir); err != nil {
			t.Error(err)
		}
	}
}

// After the newest segment was lost no number is used twice.
func TestNumbersJumpOverALostSegment(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"all of it":     func(t *testing.T, path string) { truncate(t, path, 0) },
		"its last half": spoilHalf,
	} {
		dir := damaged(t, func(_ string, segments []string) { spoil(t, segments[len(segments)-1]) })
		for range 2 { // also when it is opened again before anything is written
			s, err := Open(dir, Options{SegmentSize: small})
			if err != nil {
				t.Fatal(err)
			}
			if last := s.LastSeq(); last < lossGap {
				t.Errorf("%s: last record is %d, numbers up to %d were in use", name, last, damagedRecords)
			}
			closeTest(t, s)
		}
	}
}

// spoilHalf cuts off half of the pages that are in use.
func spoilHalf(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := newPageWalk(f)
	if err != nil {
		t.Fatal(err)
	}
	truncate(t, path, int64(w.high/2)*pageSize)
}
