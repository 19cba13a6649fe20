//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// host is the address under which an emulated machine reaches this one.
const host = "10.0.2.2"

// TestAMachineWhoseClockIsWrong runs the real binary on an emulated machine whose
// clock begins in 1970 and is set ten years ahead and back while readings wait.
func TestAMachineWhoseClockIsWrong(t *testing.T) {
	folder := os.Getenv("TIDEGATE_MACHINE")
	if folder == "" {
		t.Skip("only with TIDEGATE_MACHINE, a folder with a kernel and what it boots: scripts/wrongclock makes one")
	}
	leak.Check(t)
	s := newShoreline(t)
	m := boot(t, folder)
	m.gateway(s)
	m.wantYear(1970)
	m.read(s, 10)
	m.tell("date -s @$(( $(date +%%s) + %d ))", 10*365*86400)
	m.wantYear(1979)
	m.read(s, 10)
	m.tell("date -s @$(( $(date +%%s) - %d ))", 10*365*86400)
	m.wantYear(1970)
	m.read(s, 10)
	m.online()
	m.awaitLine(t, "bridge is up")
	m.wantYear(1970) // so much for the certificate, which is from this year
	m.tell("setclock %.3f", float64(time.Now().UnixMilli())/1000)
	s.want(30, "corrected")
	m.read(s, 10)
	s.want(40, "") // what is right from the start is not said
	for _, years := range []int{10, -20, 10} {
		m.tell("date -s @$(( $(date +%%s) + %d ))", years*365*86400)
		m.read(s, 5)
	}
	s.want(55, "")
}

// machine is an emulated board, told what to do over one serial port. Its sensor is
// at another.
type machine struct {
	*process
	t      testing.TB
	shell  net.Conn
	sensor net.Conn
	asked  int
}

func boot(t testing.TB, folder string) *machine {
	t.Helper()
	dir := t.TempDir()
	ports := []string{filepath.Join(dir, "shell"), filepath.Join(dir, "sensor")}
	args := []string{
		"-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-display", "none", "-no-reboot", "-monitor", "none", "-serial", "stdio",
		"-kernel", filepath.Join(folder, "kernel"), "-initrd", filepath.Join(folder, "initrd"), "-append", "console=ttyAMA0 panic=-1 quiet",
		"-rtc", "base=1970-01-01T00:00:10", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
	for i, p := range ports {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=port%d,path=%s,server=on,wait=off", i, p), "-device", fmt.Sprintf("pci-serial,chardev=port%d", i))
	}
	m := &machine{t: t, process: start(t, "qemu-system-aarch64", args...)}
	m.awaitLine(t, "the machine is up")
	for i, at := range []*net.Conn{&m.shell, &m.sensor} {
		conn, err := net.Dial("unix", ports[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		*at = conn
	}
	return m
}

// tell has the machine's shell do something.
func (m *machine) tell(format string, args ...any) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.shell, format+"\n", args...); err != nil {
		m.t.Fatal(err)
	}
}

// ask returns what the machine's shell prints.
func (m *machine) ask(command string) string {
	m.t.Helper()
	m.asked++
	mark := fmt.Sprintf("answer %d:", m.asked)
	m.tell(`echo "%s" $(%s)`, mark, command)
	return strings.TrimSpace(strings.TrimPrefix(m.awaitLine(m.t, mark), mark))
}

func (m *machine) wantYear(want int) {
	m.t.Helper()
	if got := m.ask("date +%Y"); got != fmt.Sprint(want) {
		m.t.Fatalf("the machine has the year %s, want %d", got, want)
	}
}

// gateway starts the gateway, without a network.
func (m *machine) gateway(s *shoreline) {
	m.t.Helper()
	m.tell("cat >/etc/ca.pem <<'END'\n%sEND", s.ca)
	m.tell(`cat >/etc/tidegate.yaml <<'END'
gateway: {name: board, data_dir: /tmp/data}
store: {min_free: 1MiB}
broker: {listeners: [{address: "tcp://127.0.0.1:1883"}]}
bridges:
  - name: cloud
    servers: ["tls://%s:%s"]
    tls: {ca: /etc/ca.pem}
    clock_wait: 10m
    backoff: {min: 200ms, max: 1s}
    out: [{topics: ["sensor/#"]}]
adapters:%s
END
tidegate run --config /etc/tidegate.yaml 2>&1 &`, host, port(s.secure), serialAdapter("probe", "/dev/ttyS1"))
	m.awaitLine(m.t, "adapter=probe")
	m.awaitLine(m.t, "ready")
}

func (m *machine) online() {
	m.tell("ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up")
}

// read has the sensor say n more numbers, and waits until the gateway has them.
func (m *machine) read(s *shoreline, n int) {
	m.t.Helper()
	for range n {
		s.update(func() { s.saidAt = append(s.saidAt, time.Now()) })
		if _, err := fmt.Fprintf(m.sensor, "n=%06d;\n", firstNumber+len(s.saidAt)-1); err != nil {
			m.t.Fatal(err)
		}
		pause(m.t.Context())
	}
	late := time.Now().Add(patience)
	for want := fmt.Sprint(len(s.saidAt)); m.ask(`tidegate status -o json | grep -m1 '"readings"' | tr -cd 0-9`) != want; {
		if time.Now().After(late) {
			m.t.Fatalf("the gateway has not got all of %s readings", want)
		}
	}
}

// shoreline is a server upstream with a certificate, and what it gets.
type shoreline struct {
	watched
	t      testing.TB
	secure string // address
	ca     string
	saidAt []time.Time // when the sensor said the numbers from firstNumber on
	got    []arrived
	seen   int // of got, by want
}

type arrived struct {
	Value       int
	Time        time.Time
	TimeQuality string `json:"time_quality"`
}

func newShoreline(t testing.TB) *shoreline {
	t.Helper()
	dir, plain := t.TempDir(), testbed.ReserveAddr(t)
	s := &shoreline{t: t, secure: testbed.ReserveAddr(t)}
	cert, key := certificate(t)
	s.ca = cert
	write(t, dir+"/cert.pem", cert)
	write(t, dir+"/key.pem", key)
	conf := fmt.Sprintf("allow_anonymous true\nlistener %s 127.0.0.1\nlistener %s 127.0.0.1\ncertfile %s/cert.pem\nkeyfile %s/key.pem\n",
		port(plain), port(s.secure), dir, dir)
	if os.Geteuid() == 0 {
		conf += "user root\n"
	}
	write(t, dir+"/mosquitto.conf", conf)
	start(t, testbed.Find(t, "mosquitto"), "-c", dir+"/mosquitto.conf").awaitLine(t, "running")
	conn, err := client.Dial(t.Context(), plain, client.Options{CleanSession: true, Handler: s.take})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if _, err := conn.Subscribe(t.Context(), mqtt.Subscription{Filter: "sensor/probe/n", QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shoreline) take(m client.Message) {
	var a arrived
	if err := json.Unmarshal(m.Payload, &a); err != nil {
		s.t.Errorf("%s: %v", m.Payload, err)
	}
	s.update(func() { s.got = append(s.got, a) })
}

// want waits for readings up to the nth, and expects those that were not yet looked at
// to be in order, of this quality, and to have the time at which the sensor said them.
func (s *shoreline) want(n int, quality string) {
	s.t.Helper()
	s.await(s.t, fmt.Sprint(n, " readings"), func() bool { return len(s.got) >= n })
	s.look(func() {
		worst := time.Duration(0)
		for ; s.seen < len(s.got); s.seen++ {
			a, off := s.got[s.seen], s.got[s.seen].Time.Sub(s.saidAt[s.seen]).Abs()
			worst = max(worst, off)
			if a.Value != firstNumber+s.seen || a.TimeQuality != quality || off > 2*time.Second {
				s.t.Errorf("reading %d is %+v, said at %v", firstNumber+s.seen, a, s.saidAt[s.seen])
			}
		}
		s.t.Logf("%d readings; the times of those with time_quality %q are off by at most %v", n, quality, worst.Round(time.Millisecond))
	})
}

// certificate returns one for host that signs itself, and its key.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().AddDate(0, -6, 0), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}
