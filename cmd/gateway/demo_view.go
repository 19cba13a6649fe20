package main

import (
	"fmt"
	"io"
	"strings"
)

// view tells the story: live in a terminal, as plain lines elsewhere.
type view interface {
	intro(s *stage)
	say(text string)
	show(n numbers)
	summary(s *stage) error
}

func newView(w io.Writer) view {
	if isTerminal(w) {
		return &liveView{plainView{w: w}}
	}
	return &plainView{w: w}
}

// plainView prints a line for each thing that is said, and one a second or so
// with the numbers.
type plainView struct {
	w     io.Writer
	shown int
}

func (v *plainView) intro(s *stage) {
	fmt.Fprintf(v.w, "sensor   a serial sensor on %s, 115200 baud, %d lines a second of 3 readings\n", s.sensor.pair.Slave, 1e9/sensorPeriod)
	fmt.Fprintf(v.w, "gateway  tcp://%s\n", s.gateway.mqttAddr())
	fmt.Fprintf(v.w, "page     %s\n", s.gateway.page())
	fmt.Fprintf(v.w, "cloud    a second broker on tcp://%s, reached over an uplink that fails now and then\n", s.cloud.mqttAddr())
	fmt.Fprintf(v.w, "try      tidegate sub -p %s -v -t 'sensor/#'\n\n", port(s.gateway.mqttAddr().String()))
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func (v *plainView) say(text string) { fmt.Fprintf(v.w, "-- %s\n", text) }

func (v *plainView) show(n numbers) {
	if v.shown++; v.shown%2 == 1 {
		fmt.Fprintf(v.w, "   %s\n", n)
	}
}

// summary says what was lost. Losing something is an error.
func (v *plainView) summary(s *stage) error {
	n := s.numbers()
	fmt.Fprintf(v.w, "\nsent %d lines · arrived %d · lost %d · came twice %d\n", n.Sent, n.Arrived, n.Lost, n.Twice)
	if n.Lost != 0 {
		return fmt.Errorf("%d of %d lines did not arrive in the cloud", n.Lost, n.Sent)
	}
	return nil
}

// String is the numbers on one line.
func (n numbers) String() string {
	state := "up  "
	if n.Down {
		state = "DOWN"
	}
	return fmt.Sprintf("%4.1f °C  %2.0f %%  sent %4d  uplink %s  queued %4d  arrived %4d", n.Temperature, n.Humidity, n.Sent, state, n.Queued, n.Arrived)
}

// liveView keeps the numbers on the last line of a terminal.
type liveView struct{ plainView }

const clearLine = "\r\x1b[K"

func (v *liveView) say(text string) { fmt.Fprintf(v.w, clearLine+"-- %s\n", text) }

func (v *liveView) show(n numbers) {
	const width = 12 // all in all less than 80 columns
	full := min(width, int(n.Queued+29)/30)
	fmt.Fprintf(v.w, clearLine+"   %s  %s", n, strings.Repeat("█", full)+strings.Repeat("░", width-full))
}

func (v *liveView) summary(s *stage) error {
	fmt.Fprintln(v.w)
	return v.plainView.summary(s)
}
