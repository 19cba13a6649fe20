package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"tidegate/adapters/serial"
)

// DevicesCmd lists serial ports.
type DevicesCmd struct {
	outputFlag
}

// Help is shown by --help.
func (DevicesCmd) Help() string {
	return `Lists the serial ports of this machine. A name in BY-ID stays with the device, one
in BY-PATH with the socket it is plugged into: use these in a configuration.

Example:

    tidegate devices -o json`
}

// noPorts is printed instead of an empty table.
const noPorts = `No serial ports found. Is the device plugged in? "dmesg | tail" shows what the kernel
made of it. The port on the pins of a Raspberry Pi has to be enabled: raspi-config,
Interface Options, Serial Port.
`

// Run prints what is there. Nothing is no error.
func (c *DevicesCmd) Run(_ context.Context, std stdio) error {
	ports, err := serial.Ports("/")
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(std, append([]serial.PortInfo{}, ports...)) // [] for none, not null
	}
	return printPorts(std.Out, ports)
}

// printPorts writes the table for people.
func printPorts(w io.Writer, ports []serial.PortInfo) error {
	if len(ports) == 0 {
		_, err := io.WriteString(w, noPorts)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PORT\tVID:PID:SERIAL\tPRODUCT\tBY-ID\tBY-PATH")
	for _, p := range ports {
		cells := []string{p.Path, usbID(p), p.Product, strings.Join(p.ByID, " "), strings.Join(p.ByPath, " ")}
		for i := range cells {
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// usbID returns VID:PID:SERIAL, or "" for a port that is not on USB.
func usbID(p serial.PortInfo) string {
	switch {
	case p.VID == "":
		return ""
	case p.Serial == "":
		return p.VID + ":" + p.PID
	}
	return p.VID + ":" + p.PID + ":" + p.Serial
}
