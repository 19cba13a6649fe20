package serial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PortInfo is a serial port that the machine has.
type PortInfo struct {
	Path    string   `json:"path"`              // such as /dev/ttyUSB0
	ByID    []string `json:"by_id,omitempty"`   // names that stay with the device: /dev/serial/by-id/…
	ByPath  []string `json:"by_path,omitempty"` // names that stay with the socket: /dev/serial/by-path/…
	VID     string   `json:"vid,omitempty"`     // of a USB device, four hexadecimal digits
	PID     string   `json:"pid,omitempty"`     // likewise
	Serial  string   `json:"serial,omitempty"`  // of a USB device that has one
	Product string   `json:"product,omitempty"` // what a USB device calls itself
}

// Ports lists the serial ports in the order of their names. root is where sysfs
// and /dev are mounted, "/" but for tests. No port is no error.
//
// A port is an entry of /sys/class/tty with a device behind it. The 8250 driver
// makes such entries for ports that a PC might have; their type is 0
// (PORT_UNKNOWN in linux/serial_core.h) as long as no hardware was found.
func Ports(root string) ([]PortInfo, error) {
	class := filepath.Join(root, "sys/class/tty")
	entries, err := os.ReadDir(class) // in the order of their names
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list serial ports: %w", err)
	}
	byID, byPath := links(root, "by-id"), links(root, "by-path")
	var ports []PortInfo
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil || attribute(dir, "type") == "0" {
			continue
		}
		port := PortInfo{Path: "/dev/" + e.Name(), ByID: byID[e.Name()], ByPath: byPath[e.Name()]}
		port.describe(device)
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b PortInfo) int { return natural(a.Path, b.Path) })
	return ports, nil
}

// describe climbs from the port's directory to that of the USB device that it
// belongs to, if it does.
func (p *PortInfo) describe(device string) {
	for dir := device; dir != filepath.Dir(dir) && filepath.Base(dir) != "devices"; dir = filepath.Dir(dir) {
		if p.VID = attribute(dir, "idVendor"); p.VID != "" {
			p.PID = attribute(dir, "idProduct")
			p.Serial = attribute(dir, "serial")
			p.Product = attribute(dir, "product")
			return
		}
	}
}

// attribute reads a file of sysfs; "" if there is none.
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// links maps the names of ports to udev's links in /dev/serial/kind.
func links(root, kind string) map[string][]string {
	dir := "/dev/serial/" + kind
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		return nil // a machine without udev, or without a USB port
	}
	names := make(map[string][]string)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(root, dir, e.Name())); err == nil {
			port := filepath.Base(target)
			names[port] = append(names[port], dir+"/"+e.Name())
		}
	}
	return names
}

// natural orders names so that ttyUSB2 comes before ttyUSB10.
func natural(a, b string) int {
	headA, headB := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
	if headA == headB && len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
