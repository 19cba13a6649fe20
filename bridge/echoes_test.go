package bridge

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestEchoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEchoes()
		came := func(payload string, want bool) {
			t.Helper()
			if e.own("a", []byte(payload)) != want {
				t.Errorf("%q is own: %v", payload, !want)
			}
		}
		came("on", false)
		e.sent("a", []byte("on"))
		e.sent("a", []byte("on"))
		if e.own("b", []byte("on")) {
			t.Error("another topic is taken for an echo")
		}
		came("off", false)
		came("on", true)
		came("on", true)
		came("on", false) // somebody else's
		e.sent("a", []byte("late"))
		time.Sleep(echoTime)
		came("late", true)
		e.sent("a", []byte("later"))
		time.Sleep(echoTime + 1)
		came("later", false)
		if len(e.due) != 0 {
			t.Errorf("%d hashes are left", len(e.due))
		}
		for i := range maxEchoes + 1 {
			e.sent("a", []byte(strconv.Itoa(i)))
		}
		came("0", false)
		came("1", true)
		came(strconv.Itoa(maxEchoes), true)
		if len(e.due) != maxEchoes-2 {
			t.Errorf("%d hashes are kept, the bound is %d", len(e.due), maxEchoes)
		}
	})
}
