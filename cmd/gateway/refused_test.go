package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the gateway refuses it refuses with a reason code and in words, and pub and sub
// pass both on.
func TestPubAndSubSayWhyTheyAreRefused(t *testing.T) {
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, []byte("topic read open/#\ntopic write open/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(c *Config) {
		c.Broker.ACLFile, c.Broker.Limits.MaxRetained = acl, 1
	})
	_, port, _ := strings.Cut(s.mqttAddr().String(), ":")
	expect(t, "", "", "pub", "-p", port, "-t", "open/1", "-r", "-m", "x", "-q", "1")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"SUBACK":            {[]string{"sub", "-t", "closed/#", "-V", "5"}, []string{`"closed/#"`, "0x87: not authorised", `(not authorized to `}},
		"SUBACK of 3.1.1":   {[]string{"sub", "-t", "closed/#"}, []string{`"closed/#"`, "check what this user may read"}},
		"the second of two": {[]string{"sub", "-t", "open/#", "-t", "closed/2", "-V", "5"}, []string{`"closed/2"`, "0x87: not authorised"}},
		"PUBACK":            {[]string{"pub", "-t", "closed", "-m", "x", "-q", "1", "-V", "5"}, []string{"PUBACK 0x87: not authorised", `(not authorized to `}},
		"PUBREC":            {[]string{"pub", "-t", "open/2", "-r", "-m", "x", "-q", "2", "-V", "5"}, []string{"PUBREC 0x97: quota exceeded", "another retained message"}},
		"PUBACK of a line":  {[]string{"pub", "-t", "closed", "-l", "-q", "1", "-V", "5"}, []string{"PUBACK 0x87: not authorised"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := callWith(t.Context(), "line\n", append(c.args, "-p", port)...)
			if code != exitFailed || out != "" {
				t.Errorf("it ends with %d and prints %q", code, out)
			}
			for _, want := range c.want {
				if !strings.Contains(errOut, want) {
					t.Errorf("it says %q, without %q", errOut, want)
				}
			}
		})
	}
}
