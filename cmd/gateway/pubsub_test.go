package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// expect runs a command line that must end with 0 and print want.
func expect(t *testing.T, want, in string, args ...string) {
	t.Helper()
	code, out, errOut := callWith(t.Context(), in, args...)
	if code != exitDone || out != want || errOut != "" {
		t.Errorf("%q ends with %d, says %q and prints\n%.200q, want\n%.200q", args, code, errOut, out, want)
	}
}

func TestPubAndSubSpeakWithMosquitto(t *testing.T) {
	leak.Check(t)
	port := testbed.StartMosquitto(t, "max_queued_messages 0", "allow_anonymous true").Port()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("from\na file"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Retained messages wait for whoever subscribes, so nobody has to hurry.
	for _, c := range []struct {
		name, in, want string
		pub, sub       []string
	}{
		{"text", "", "hello\n", []string{"-m", "hello"}, nil},
		{"text that looks like a flag", "", "-5\n", []string{"-m", "-5"}, nil},
		{"empty text given as such is not retained, as MQTT says", "", "marker\n", []string{"-m", ""}, nil},
		{"QoS 1", "", "hello\n", []string{"-m", "hello", "-q", "1"}, []string{"-q", "1"}},
		{"QoS 2", "", "hello\n", []string{"-m", "hello", "-q", "2"}, []string{"-q", "2"}},
		{"MQTT 3.1", "", "hello\n", []string{"-m", "hello", "-V", "mqttv31"}, []string{"-V", "31"}},
		{"MQTT 5", "", "hello\n", []string{"-m", "hello", "-V", "mqttv5"}, []string{"-V", "5"}},
		{"a client id", "", "hello\n", []string{"-m", "hello", "-i", "a"}, []string{"-i", "b"}},
		{"a file", "", "from\na file\n", []string{"-f", file}, nil},
		{"all of standard input", "two\nlines", "two\nlines\n", []string{"-s"}, nil},
		{"the last line of standard input", "one\n\ntwo\r\nthree", "three\n", []string{"-l"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "marker\n" {
				expect(t, "", "", "pub", "-p", port, "-r", "-t", "pub/sub", "-m", "marker", "-q", "1")
				expect(t, "", "", append([]string{"pub", "-p", port, "-t", "pub/sub"}, c.pub...)...)
			} else {
				expect(t, "", c.in, append([]string{"pub", "-p", port, "-r", "-t", "pub/sub"}, c.pub...)...)
			}
			expect(t, c.want, "", append([]string{"sub", "-p", port, "-t", "pub/sub", "-C", "1"}, c.sub...)...)
		})
	}
	t.Run("verbose, several filters, in the order of subscription", func(t *testing.T) {
		expect(t, "", "", "pub", "-p", port, "-r", "-t", "a/1", "-m", "x")
		expect(t, "", "", "pub", "-p", port, "-r", "-t", "b,2", "-m", "y")
		expect(t, "a/1 x\nb,2 y\n", "", "sub", "-p", port, "-v", "-t", "a/+", "-t", "b,2", "-C", "2")
	})
	t.Run("-n removes what is retained", func(t *testing.T) {
		expect(t, "", "", "pub", "-p", port, "-r", "-t", "n/1", "-m", "x")
		expect(t, "", "", "pub", "-p", port, "-r", "-t", "n/1", "-n")
		expect(t, "", "", "pub", "-p", port, "-r", "-t", "n/2", "-m", "y")
		expect(t, "n/2 y\n", "", "sub", "-p", port, "-v", "-t", "n/#", "-C", "1")
	})
	t.Run("mosquitto_pub and mosquitto_sub understand the same flags", func(t *testing.T) {
		flags := []string{"-h", "127.0.0.1", "-p", port, "-t", "m", "-q", "1", "-V", "mqttv311", "-i", "x"}
		foreign := func(program string, more ...string) string {
			out, err := exec.Command(program, append(flags, more...)...).CombinedOutput()
			if err != nil {
				t.Skipf("%s: %v", program, err)
			}
			return string(out)
		}
		foreign("mosquitto_pub", "-m", "theirs", "-r")
		expect(t, "m theirs\n", "", append([]string{"sub", "-v", "-C", "1"}, flags...)...)
		expect(t, "", "", append([]string{"pub", "-m", "ours", "-r"}, flags...)...)
		if got := foreign("mosquitto_sub", "-v", "-C", "1"); got != "m ours\n" {
			t.Errorf("mosquitto_sub printed %q", got)
		}
	})
}

func TestLinesArriveInOrderAndWaitForASession(t *testing.T) {
	leak.Check(t)
	port := testbed.StartMosquitto(t, "max_queued_messages 0", "allow_anonymous true").Port()
	sub := func(count string) []string {
		return []string{"sub", "-p", port, "-t", "lines", "-q", "1", "-c", "-i", "archive", "-C", count}
	}
	session, err := client.Dial(t.Context(), "127.0.0.1:"+port, client.Options{ClientID: "archive"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Subscribe(t.Context(), mqtt.Subscription{Filter: "lines", QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	if err := session.Disconnect(); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	expect(t, "", lines.String(), "pub", "-p", port, "-t", "lines", "-q", "1", "-l")
	// What -C leaves is not acknowledged and stays. There is more of it than fits
	// between the broker and its answer to the SUBSCRIBE.
	_, part, _ := call(t, sub("700")...)
	_, rest, _ := call(t, sub("1300")...)
	if got := part + rest; got != lines.String() {
		t.Errorf("%d lines arrived, or in another order: %.300q", strings.Count(got, "\n"), got)
	}
}

// notify closes first with the first write.
type notify struct{ first chan struct{} }

func (n *notify) Write(b []byte) (int, error) {
	select {
	case <-n.first:
	default:
		close(n.first)
	}
	return len(b), nil
}

func TestHowSubEnds(t *testing.T) {
	leak.Check(t)
	port := testbed.StartMosquitto(t, "max_queued_messages 0", "allow_anonymous true").Port()
	expect(t, "", "", "pub", "-p", port, "-t", "a", "-r", "-m", "x")
	t.Run("with 0 by ^C", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		out := &notify{make(chan struct{})}
		go func() {
			<-out.first
			interrupt()
		}()
		var errOut strings.Builder
		if code := run(ctx, []string{"sub", "-p", port, "-t", "a"}, stdio{nil, out, &errOut}); code != exitDone || errOut.String() != "" {
			t.Errorf("it ends with %d and says %q", code, errOut.String())
		}
	})
	t.Run("with 27 when the time is over", func(t *testing.T) {
		code, out, errOut := call(t, "sub", "-p", port, "-t", "nothing", "-W", "1")
		if code != exitTimeout || out != "" || errOut != "tidegate: timed out after 1 s\n" {
			t.Errorf("it ends with %d, says %q and prints %q", code, errOut, out)
		}
	})
	t.Run("with 1 when another client takes the id", func(t *testing.T) {
		out := &notify{make(chan struct{})}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			var errOut strings.Builder
			code := run(t.Context(), []string{"sub", "-p", port, "-t", "a", "-i", "same"}, stdio{nil, out, &errOut})
			if code != exitFailed || !strings.Contains(errOut.String(), `does another client use the client id "same"?`) {
				t.Errorf("it ends with %d and says %q", code, errOut.String())
			}
		}()
		<-out.first
		expect(t, "x\n", "", "sub", "-p", port, "-t", "a", "-i", "same", "-C", "1")
		<-ended
	})
}

func TestPubOfLinesEndsWithItsConnection(t *testing.T) {
	leak.Check(t)
	port := testbed.StartMosquitto(t, "max_queued_messages 0", "allow_anonymous true").Port()
	ctx, interrupt := context.WithCancel(t.Context())
	in, keyboard := io.Pipe()
	defer keyboard.Close() // what reads a terminal cannot be interrupted
	go func() {
		_, _ = io.WriteString(keyboard, "one\n")
		interrupt()
	}()
	var errOut strings.Builder
	code := run(ctx, []string{"pub", "-p", port, "-t", "a", "-q", "1", "-l"}, stdio{in, nil, &errOut})
	if code != exitFailed || errOut.String() != "tidegate: interrupted before the end\n" {
		t.Errorf("it ends with %d and says %q", code, errOut.String())
	}
}

func TestBrokersThatCannotBeUsed(t *testing.T) {
	port := testbed.StartMosquitto(t, "max_queued_messages 0", "allow_anonymous false").Port()
	code, _, errOut := call(t, "pub", "-p", port, "-t", "a", "-m", "x")
	if code != exitFailed || !strings.Contains(errOut, "refused the connection") || !strings.Contains(errOut, "user name") {
		t.Errorf("without a login it ends with %d and says %q", code, errOut)
	}
	_, port, _ = net.SplitHostPort(testbed.ReserveAddr(t))
	code, _, errOut = call(t, "sub", "-h", "127.0.0.1", "-p", port, "-t", "a")
	want := "tidegate: nothing listens at 127.0.0.1:" + port + ": is the broker running? -h and -p name another one\n"
	if code != exitFailed || errOut != want {
		t.Errorf("it ends with %d and says %q, want %q", code, errOut, want)
	}
}
