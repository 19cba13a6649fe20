package serial

import (
	_ "embed"
	"fmt"
	"log/slog"
	"slices"

	"tidegate/adapters"
	"tidegate/adapters/decode"
	"tidegate/adapters/frame"
	"tidegate/internal/check"
)

// Kind is the name of this kind of adapter in the configuration.
const Kind = "serial"

// Sample is a configuration to start from: one entry of the list "adapters".
//
//go:embed sample.yaml
var Sample string

// The values of [Config.Parity].
const (
	ParityNone = "none"
	ParityEven = "even"
	ParityOdd  = "odd"
)

// Config is the configuration of one serial port.
type Config struct {
	adapters.Config `yaml:",inline"`

	Device   string        `yaml:"device"`              // path of the port; those in /dev/serial/by-id keep their names
	Baud     int           `yaml:"baud,omitempty"`      // bits per second, one of the standard rates; default 9600
	DataBits int           `yaml:"data_bits,omitempty"` // 5 to 8, default 8
	Parity   string        `yaml:"parity,omitempty"`    // none (default), even, odd
	StopBits int           `yaml:"stop_bits,omitempty"` // 1 (default) or 2
	Frame    frame.Config  `yaml:"frame"`
	Decode   decode.Config `yaml:"decode"`
}

// SetDefaults fills in what was left out: 9600 baud, 8N1, lines of text.
func (c *Config) SetDefaults() {
	c.Config.SetDefaults()
	if c.Kind == "" {
		c.Kind = Kind
	}
	if c.Baud == 0 {
		c.Baud = 9600
	}
	if c.DataBits == 0 {
		c.DataBits = 8
	}
	if c.Parity == "" {
		c.Parity = ParityNone
	}
	if c.StopBits == 0 {
		c.StopBits = 1
	}
	c.Frame.SetDefaults()
	c.Decode.SetDefaults()
}

// Check returns every mistake.
func (c *Config) Check() check.Problems {
	p := c.Config.Check()
	c.checkLine(&p)
	p.Under("frame", c.Frame.Check())
	p.Under("decode", c.Decode.Check())
	return p
}

func (c *Config) checkLine(p *check.Problems) {
	if c.Device == "" {
		p.Add("device", "the device is missing; `tidegate devices` lists the ports, as in /dev/serial/by-id/usb-FTDI_…")
	}
	if !slices.Contains(bauds, c.Baud) {
		p.Add("baud", "%d is no standard rate; use %s", c.Baud, nearestBauds(c.Baud))
	}
	if c.DataBits < 5 || c.DataBits > 8 {
		p.Add("data_bits", "%d is not 5, 6, 7 or 8", c.DataBits)
	}
	if c.Parity != ParityNone && c.Parity != ParityEven && c.Parity != ParityOdd {
		p.Add("parity", "%q is not none, even or odd", c.Parity)
	}
	if c.StopBits != 1 && c.StopBits != 2 {
		p.Add("stop_bits", "%d is not 1 or 2", c.StopBits)
	}
}

// bauds are the rates that the driver knows, in order.
var bauds = []int{
	50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800,
	500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000, 3500000, 4000000,
}

// nearestBauds names the rates around one that is not standard.
func nearestBauds(baud int) string {
	i, _ := slices.BinarySearch(bauds, baud)
	switch i {
	case 0:
		return fmt.Sprint(bauds[0])
	case len(bauds):
		return fmt.Sprint(bauds[i-1])
	}
	return fmt.Sprintf("%d or %d", bauds[i-1], bauds[i])
}

// Open makes the adapter. It does not touch the port.
func (c *Config) Open(log *slog.Logger) (adapters.Adapter, error) {
	decoder, err := c.Decode.New()
	if err != nil {
		return nil, fmt.Errorf("open adapter %q: %w", c.Name, err)
	}
	return &Adapter{
		config:   *c,
		decoder:  decoder,
		log:      log.With("adapter", c.Name),
		rejected: make(map[string]uint64),
	}, nil
}
