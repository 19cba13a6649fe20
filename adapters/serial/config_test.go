package serial

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tidegate/adapters"
	"tidegate/adapters/decode"
	"tidegate/adapters/frame"
)

var _ adapters.Entry = (*Config)(nil)

func TestDefaults(t *testing.T) {
	c := Config{Config: adapters.Config{Name: "a"}, Device: "/dev/ttyUSB0"}
	c.SetDefaults()
	want := Config{
		Config:   adapters.Config{Name: "a", Kind: "serial", Topic: adapters.DefaultTopic, Payload: "json"},
		Device:   "/dev/ttyUSB0",
		Baud:     9600,
		DataBits: 8,
		Parity:   "none",
		StopBits: 1,
		Frame:    frame.Config{Kind: "line", Max: 4096},
		Decode:   decode.Config{Kind: "text", Field: "value"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if p := c.Check(); len(p) > 0 {
		t.Error(p)
	}
}

func TestCheckFindsEveryMistake(t *testing.T) {
	c := Config{
		Config:   adapters.Config{Name: "a/b", Payload: "senml"},
		Baud:     31250,
		DataBits: 9,
		Parity:   "mark",
		StopBits: 3,
		Frame:    frame.Config{Kind: "slip"},
		Decode:   decode.Config{Kind: decode.KindCSV, Fields: []string{"a", "a"}},
	}
	c.SetDefaults()
	var paths []string
	for _, p := range c.Check() {
		paths = append(paths, p.Path)
	}
	want := []string{"name", "payload", "device", "baud", "data_bits", "parity", "stop_bits", "frame.kind", "decode.fields[1]"}
	if !slices.Equal(paths, want) {
		t.Errorf("problems %q, want at %q", c.Check(), want)
	}
}

func TestNearestBauds(t *testing.T) {
	for baud, want := range map[int]string{-1: "50", 31250: "19200 or 38400", 9601: "9600 or 19200", 5000000: "4000000"} {
		if got := nearestBauds(baud); got != want {
			t.Errorf("near %d: %s, want %s", baud, got, want)
		}
	}
	if !slices.IsSorted(bauds) {
		t.Error("the rates are not in order")
	}
}

func TestFaultsSayWhatToDo(t *testing.T) {
	for err, want := range map[error]string{
		&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}: "no such device /dev/ttyUSB7: is it plugged in?",
		syscall.ENXIO:   "no such device /dev/ttyUSB7: is it plugged in?",
		syscall.EACCES:  "permission denied for /dev/ttyUSB7: add the gateway's user to the group dialout",
		syscall.EBUSY:   "/dev/ttyUSB7 is in use by another program: find it with `fuser -v /dev/ttyUSB7`",
		syscall.ENOTTY:  "/dev/ttyUSB7 is no serial port",
		ErrGone:         "/dev/ttyUSB7 is gone: was it unplugged",
		syscall.ENOMEM:  "serial port /dev/ttyUSB7: cannot allocate memory",
		errors.New("x"): "serial port /dev/ttyUSB7: x",
	} {
		fault := &DeviceError{"/dev/ttyUSB7", err}
		if got := fault.Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
		if !errors.Is(fault, err) {
			t.Errorf("%v is lost", err)
		}
	}
}

// tree writes files, and links for values that begin with "->".
func tree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A Pi with two USB adapters, its own UART, and the ports that the 8250 driver
// always makes.
func TestPorts(t *testing.T) {
	const (
		usb  = "sys/devices/platform/soc/3f980000.usb/usb1/1-1/"
		ftdi = usb + "1-1.2/"
		acm  = usb + "1-1.3/"
	)
	root := tree(t, map[string]string{
		usb + "idVendor":               "1d6b\n", // the hub above must not be taken for the device
		ftdi + "idVendor":              "0403\n",
		ftdi + "idProduct":             "6001\n",
		ftdi + "serial":                "A50285BI\n",
		ftdi + "product":               "FT232R USB UART\n",
		ftdi + "1-1.2:1.0/ttyUSB10/id": "",
		acm + "idVendor":               "2341\n",
		acm + "idProduct":              "0043\n",
		acm + "1-1.3:1.0/id":           "",

		"sys/devices/platform/soc/3f201000.serial/driver": "",
		"sys/devices/platform/serial8250/id":              "",
		"sys/class/tty/ttyUSB10/device":                   "->../../../devices/platform/soc/3f980000.usb/usb1/1-1/1-1.2/1-1.2:1.0/ttyUSB10",
		"sys/class/tty/ttyUSB2/device":                    "->../../../devices/platform/soc/3f980000.usb/usb1/1-1/1-1.3/1-1.3:1.0",
		"sys/class/tty/ttyAMA0/device":                    "->../../../devices/platform/soc/3f201000.serial",
		"sys/class/tty/ttyAMA0/type":                      "32\n",
		"sys/class/tty/ttyS0/device":                      "->../../../devices/platform/serial8250",
		"sys/class/tty/ttyS0/type":                        "0\n",
		"sys/class/tty/ttyS1/device":                      "->../../../devices/platform/serial8250",
		"sys/class/tty/ttyS1/type":                        "4\n",
		"sys/class/tty/tty1/uevent":                       "", // a console has no device
		"sys/class/tty/ttyGone/device":                    "->../../../devices/gone",

		"dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0":                     "->../../ttyUSB10",
		"dev/serial/by-path/platform-3f980000.usb-usb-0:1.2:1.0-port0":                      "->../../ttyUSB10",
		"dev/serial/by-path/platform-3f980000.usb-usbv2-0:1.2:1.0-port0":                    "->../../ttyUSB10",
		"dev/serial/by-id/usb-Arduino__www.arduino.cc__0043_7563331313335190D1A1-if00-none": "->../../ttyGone",
	})
	ports, err := Ports(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []PortInfo{
		{Path: "/dev/ttyAMA0"},
		{Path: "/dev/ttyS1"},
		{Path: "/dev/ttyUSB2", VID: "2341", PID: "0043"},
		{
			Path: "/dev/ttyUSB10",
			ByID: []string{"/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"},
			ByPath: []string{
				"/dev/serial/by-path/platform-3f980000.usb-usb-0:1.2:1.0-port0",
				"/dev/serial/by-path/platform-3f980000.usb-usbv2-0:1.2:1.0-port0",
			},
			VID: "0403", PID: "6001", Serial: "A50285BI", Product: "FT232R USB UART",
		},
	}
	if !reflect.DeepEqual(ports, want) {
		t.Errorf("got  %+v\nwant %+v", ports, want)
	}
}

func TestNoPortsIsNoError(t *testing.T) {
	for name, root := range map[string]string{
		"no sysfs":      t.TempDir(),
		"only consoles": tree(t, map[string]string{"sys/class/tty/tty1/uevent": ""}),
	} {
		if ports, err := Ports(root); len(ports) > 0 || err != nil {
			t.Errorf("%s: got %+v, %v", name, ports, err)
		}
	}
}
