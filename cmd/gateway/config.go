package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"tidegate/adapters"
	"tidegate/adapters/serial"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/check"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/store"
)

// Config is the whole configuration. Sections belong to the packages that use
// them; those that concern the process stand here.
type Config struct {
	Gateway  GatewayConfig    `yaml:"gateway"`
	Store    StoreConfig      `yaml:"store"`
	Broker   broker.Config    `yaml:"broker"`
	Bridges  []bridge.Config  `yaml:"bridges"`
	Adapters []adapters.Entry `yaml:"adapters"`
	Admin    AdminConfig      `yaml:"admin"`
}

// GatewayConfig is the `gateway:` part: the process as a whole.
type GatewayConfig struct {
	Name        string     `yaml:"name"` // part of client ids and topics; default: the host name
	DataDir     string     `yaml:"data_dir"`
	MemoryLimit units.Size `yaml:"memory_limit"` // of the process; clients may take half of it together
	Log         LogConfig  `yaml:"log"`
}

// LogConfig says what is logged, and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // one of logLevels
	Format string `yaml:"format"` // one of logFormats
}

// StoreConfig is the `store:` part: when messages are written to disk.
type StoreConfig struct {
	CommitInterval units.Duration `yaml:"commit_interval"` // longest wait for a group commit
	OnlineDelay    units.Duration `yaml:"online_delay"`    // time for a present consumer to acknowledge unwritten
	FlashBudget    units.Budget   `yaml:"flash_budget"`    // commits are kept further apart to stay inside; 0: none

	MaxSize units.Size `yaml:"max_size"` // of the data directory
	MinFree units.Size `yaml:"min_free"` // of its file system, which the gateway leaves to others

	SegmentSize     units.Size     `yaml:"segment_size"`     // of a file of the journal, the unit in which space comes back
	CompactInterval units.Duration `yaml:"compact_interval"` // how often mostly dead segments are written anew
}

// AdminConfig is the `admin:` part: the page and its API.
type AdminConfig struct {
	Listen string `yaml:"listen"` // host:port
}

// kinds are the adapters that a configuration can ask for.
var kinds = []struct {
	name string
	new  func() adapters.Entry
}{
	{serial.Kind, func() adapters.Entry { return new(serial.Config) }},
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// newEntry returns an empty configuration for an adapter of kind, or nil.
func newEntry(kind string) adapters.Entry {
	for _, k := range kinds {
		if k.name == kind {
			return k.new()
		}
	}
	return nil
}

func kindNames() []string {
	var list []string
	for _, k := range kinds {
		list = append(list, k.name)
	}
	return list
}

// systemConfig is where packages install the configuration.
const systemConfig = "/etc/tidegate/tidegate.yaml"

// locate returns the configuration file to use: the one the user named, else
// $TIDEGATE_CONFIG, else [systemConfig] if there is one, else "" for [Default].
func locate(named string) string {
	if named != "" {
		return named
	}
	if path := os.Getenv("TIDEGATE_CONFIG"); path != "" {
		return path
	}
	if _, err := os.Stat(systemConfig); err == nil {
		return systemConfig
	}
	return ""
}

// Default returns the built-in configuration: a broker and a page for this
// machine only, no adapters, no bridges.
func Default() *Config {
	c := new(Config)
	c.SetDefaults()
	return c
}

// Load reads the configuration file at path and conf.d/*.yaml beside it, fills
// in the defaults and checks everything. An empty path is [Default]. Its error
// is [Errors] with every mistake.
func Load(path string) (*Config, error) {
	c, _, err := loadWarned(path)
	return c, err
}

// loadWarned is Load that also returns what is no mistake but may not be meant.
func loadWarned(path string) (*Config, Errors, error) {
	if path == "" {
		return Default(), nil, nil
	}
	c, l := new(Config), newLoader()
	files, err := configFiles(path)
	if err != nil {
		return nil, nil, Errors{{File: path, Text: err.Error()}}
	}
	for _, file := range files {
		contents, err := os.ReadFile(file)
		if err != nil {
			l.errs = append(l.errs, Error{File: file, Text: readProblem(err)})
			l.broken = true
			continue
		}
		l.decode(file, contents, reflect.ValueOf(c).Elem())
	}
	if !l.broken { // else every section after the break would seem to be missing
		l.complete(c)
		l.readSecrets(c)
		l.checkAccessFiles(c)
	}
	if len(l.errs) > 0 {
		return nil, nil, l.errs.sorted(files)
	}
	return c, l.warnings(c).sorted(files), nil
}

// configFiles returns path and the files of conf.d beside it, in name order.
func configFiles(path string) ([]string, error) {
	dir := filepath.Join(filepath.Dir(path), "conf.d")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %s", dir, readProblem(err))
	}
	files := []string{path}
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".yaml") && e.Name()[0] != '.' {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// readProblem says why a file could not be read, without its name.
func readProblem(err error) string {
	var failed *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("may not be read by user id %d: check its owner and mode", os.Getuid())
	case errors.As(err, &failed):
		return "cannot be read: " + failed.Err.Error()
	}
	return err.Error()
}

// SetDefaults fills in what is not set, in every section.
func (c *Config) SetDefaults() {
	c.Broker.SetDefaults()
	c.Gateway.setDefaults(c.Broker.Limits.MaxConnections)
	c.Store.setDefaults()
	for i := range c.Bridges {
		c.Bridges[i].SetDefaults()
	}
	for _, a := range c.Adapters {
		if a != nil {
			a.SetDefaults()
		}
	}
	if c.Admin.Listen == "" {
		c.Admin.Listen = "127.0.0.1:8080"
	}
}

// What memory_limit is if it is not set: enough for so many connections, and more
// for each beyond them.
const (
	standardMemory      = 64 * units.MiB
	standardConnections = 1000
	memoryPerConnection = 16 * units.KiB
)

func (c *GatewayConfig) setDefaults(maxConnections int) {
	if c.Name == "" {
		c.Name = hostName()
	}
	if c.DataDir == "" {
		c.DataDir = "./tidegate-data"
	}
	if c.MemoryLimit == 0 {
		c.MemoryLimit = standardMemory + memoryPerConnection*units.Size(max(0, maxConnections-standardConnections))
	}
	if c.Log.Level == "" {
		c.Log.Level = "info"
	}
	if c.Log.Format == "" {
		c.Log.Format = "text"
	}
}

func (c *StoreConfig) setDefaults() {
	if c.CommitInterval == 0 {
		c.CommitInterval = units.Duration(10 * time.Millisecond)
	}
	if c.OnlineDelay == 0 {
		c.OnlineDelay = units.Duration(time.Second)
	}
	if c.MaxSize == 0 {
		c.MaxSize = units.GiB
	}
	if c.MinFree == 0 {
		c.MinFree = 256 * units.MiB
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = store.DefaultSegment
	}
	if c.CompactInterval == 0 {
		c.CompactInterval = units.Duration(time.Minute)
	}
}

// hostName returns the name of the machine, or a fixed one where it has none
// that a topic could carry.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || !isLevel(name) {
		return "tidegate"
	}
	return name
}

// isLevel reports whether name can be one level of a topic.
func isLevel(name string) bool {
	return mqtt.ValidName(name) == nil && !strings.Contains(name, "/")
}

// Check reports what is wrong with c once its defaults are filled in. Entries
// that could not be decoded are nil and passed over.
func (c *Config) Check() check.Problems {
	var p check.Problems
	p.Under("gateway", c.Gateway.check())
	p.Under("store", c.Store.check())
	p.Under("broker", c.Broker.Check())
	names := map[string]string{}
	for i := range c.Bridges {
		path := fmt.Sprintf("bridges[%d]", i)
		p.Under(path, c.Bridges[i].Check())
		taken(&p, names, path, c.Bridges[i].Name)
	}
	names = map[string]string{}
	for i, a := range c.Adapters {
		if a != nil {
			path := fmt.Sprintf("adapters[%d]", i)
			p.Under(path, a.Check())
			taken(&p, names, path, a.Common().Name)
		}
	}
	p.Under("admin", c.Admin.check())
	return p
}

// reachable refuses an address that other machines can reach.
const reachable = "%q is reachable from the network, but this version has no authentication: use 127.0.0.1 or [::1]"

// taken complains about a name that was given before.
func taken(p *check.Problems, names map[string]string, path, name string) {
	if before := names[name]; before != "" && name != "" {
		p.Add(path+".name", "%q is the name of %s already: each needs its own", name, before)
		return
	}
	names[name] = path
}

func (c *GatewayConfig) check() check.Problems {
	var p check.Problems
	if !isLevel(c.Name) {
		p.Add("name", "%q cannot be a level of a topic: leave out / + # and control characters", c.Name)
	}
	if c.MemoryLimit < 16*units.MiB {
		p.Add("memory_limit", "%s is too little to work with: give 16MiB or more", c.MemoryLimit)
	}
	if !slices.Contains(logLevels, c.Log.Level) {
		p.Add("log.level", "%q is no level%s", c.Log.Level, suggest(c.Log.Level, logLevels))
	}
	if !slices.Contains(logFormats, c.Log.Format) {
		p.Add("log.format", "%q is no format%s", c.Log.Format, suggest(c.Log.Format, logFormats))
	}
	return p
}

// leastBudget pays for some hundred commits a day.
const leastBudget = units.Budget(2 * units.MiB)

func (c *StoreConfig) check() check.Problems {
	var p check.Problems
	atMost := func(path string, d units.Duration, most time.Duration) {
		if time.Duration(d) > most {
			p.Add(path, "%s is too long: publishers wait for it; give %s or less", d, units.Duration(most))
		}
	}
	atMost("commit_interval", c.CommitInterval, time.Minute)
	atMost("online_delay", c.OnlineDelay, time.Minute)
	if c.FlashBudget > 0 && c.FlashBudget < leastBudget {
		p.Add("flash_budget", "%s is less than a commit an hour takes; give %s or more", c.FlashBudget, leastBudget)
	}
	least := 4 * c.SegmentSize
	switch {
	case c.SegmentSize < store.MinSegment || c.SegmentSize > store.MaxSegment:
		p.Add("segment_size", "%s is not possible: give %s to %s", c.SegmentSize, store.MinSegment, store.MaxSegment)
	case c.MaxSize < least:
		p.Add("max_size", "%s is too little: space comes back by files of segment_size, %s; give %s or more", c.MaxSize, c.SegmentSize, least)
	}
	return p
}

func (c *AdminConfig) check() check.Problems {
	var p check.Problems
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		p.Add("listen", "%q is no address: write host:port, as in 127.0.0.1:8080", c.Listen)
	case !isLoopback(host):
		p.Add("listen", reachable, c.Listen)
	}
	return p
}

// isLoopback reports whether only this machine can reach host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
