package clock

import "syscall"

// statusUnsynced is STA_UNSYNC of adjtimex(2).
const statusUnsynced = 0x40

// systemSynced reports whether the kernel has been told, by whoever keeps its
// clock (NTP, PTP), that it is right. The kernel takes that back when nobody has
// said so for hours, and when somebody sets the clock.
func systemSynced() bool {
	var t syscall.Timex
	_, err := syscall.Adjtimex(&t)
	return err == nil && t.Status&statusUnsynced == 0
}
