// Command setclock sets the clock of a machine under test to a Unix time in seconds
// and tells the kernel that it is right, as a program does that keeps it by NTP.
package main

import (
	"log"
	"os"
	"strconv"
	"syscall"
)

func main() {
	at, err := strconv.ParseFloat(os.Args[1], 64)
	if err != nil {
		log.Fatal(err)
	}
	tv := syscall.NsecToTimeval(int64(at * 1e9))
	if err := syscall.Settimeofday(&tv); err != nil {
		log.Fatal(err)
	}
	const maxError, estError, status, pll = 0x4, 0x8, 0x10, 0x1 // of adjtimex(2)
	if _, err := syscall.Adjtimex(&syscall.Timex{Modes: maxError | estError | status, Status: pll, Maxerror: 1000, Esterror: 1000}); err != nil {
		log.Fatal(err)
	}
}
