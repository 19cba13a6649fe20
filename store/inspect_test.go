package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The report names the file, says what is wrong, and counts.
func TestInspectSaysWhatIsDamaged(t *testing.T) {
	var paths []string
	dir := damaged(t, func(state string, segments []string) {
		flip(t, segments[0], crashData(5))
		flip(t, segments[0], crashData(6))
		write(t, segments[1], 0, make([]byte, 4*pageSize))
		flip(t, segments[len(segments)-1], "the note")
		flip(t, state, "the row")
		paths = segments
	})
	before := contents(t, dir)
	r, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	find := func(path string) Damage {
		d := r.of(dir, path)
		if d == nil {
			t.Errorf("nothing is said about %s", path)
			return Damage{}
		}
		return *d
	}
	if d := find(paths[0]); d.Records != 2 || d.Unreadable || len(d.Findings) != 2 || d.Findings[0] != "record 5: checksum is wrong" {
		t.Errorf("two records: %+v", d)
	}
	second, _ := parseSegment(strings.TrimPrefix(below(dir, paths[1]), journalDir+"/"))
	third, _ := parseSegment(strings.TrimPrefix(below(dir, paths[2]), journalDir+"/"))
	if d := find(paths[1]); !d.Unreadable || d.AtMost != third-second {
		t.Errorf("an unreadable segment of %d: %+v", third-second, d)
	}
	if d := find(paths[len(paths)-1]); d.Rows != 1 || d.Unreadable {
		t.Errorf("a position: %+v", d)
	}
	if d := find(dir + "/" + stateName); d.Rows != 1 || d.File != stateName {
		t.Errorf("a row: %+v", d)
	}
	if len(r.Damage) != 4 || r.Files != len(paths)+1 || r.Records != damagedRecords-2-(third-second) {
		t.Errorf("%d damages, %d files, %d sound records", len(r.Damage), r.Files, r.Records)
	}
	after := contents(t, dir)
	for path := range before {
		if after[path] != before[path] {
			t.Errorf("%s has changed", path)
		}
	}
}

// A file that somebody has deleted is damage, in an open store too.
func TestInspectMissesFiles(t *testing.T) {
	dir := damaged(t, func(state string, _ []string) {
		if err := os.Remove(state); err != nil {
			t.Fatal(err)
		}
	})
	r, err := Inspect(dir)
	if err != nil || len(r.Damage) != 1 || r.Damage[0].File != stateName || r.Records != damagedRecords {
		t.Errorf("%+v, %v", r, err)
	}
	gone := 0
	dir = damaged(t, func(_ string, segments []string) {
		second, _ := parseSegment(filepath.Base(segments[1]))
		third, _ := parseSegment(filepath.Base(segments[2]))
		gone = int(third - second)
		if err := os.Remove(segments[1]); err != nil {
			t.Fatal(err)
		}
	})
	r, err = Inspect(dir)
	if want := []Missing{{1, damagedRecords, damagedRecords - uint64(gone)}}; err != nil || !slices.Equal(r.Missing, want) {
		t.Errorf("a segment is missing: %+v, %v, want %+v", r, err, want)
	}
	dir = damaged(t, func(string, []string) {})
	if r, err = Inspect(dir); err != nil || r.Missing != nil {
		t.Errorf("nothing is missing: %+v, %v", r, err)
	}
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if err := os.Remove(segmentsOf(t, dir)[1]); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Inspect(); err != nil || len(r.Damage) != 1 || !r.Damage[0].Unreadable || r.Damage[0].AtMost == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
