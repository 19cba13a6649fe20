package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/broker/auth"
)

func TestAccessFilesStartAtTheFolderOfTheirConfiguration(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"c.yaml":          "broker: {password_file: users/passwd}\n",
		"conf.d/acl.yaml": "broker: {acl_file: acl}\n",
		"conf.d/acl":      "topic read #\n",
		"users/.keep":     "",
	})
	if err := auth.SetPassword(filepath.Join(dir, "users/passwd"), "alice", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	c, err := Load(filepath.Join(dir, "c.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Broker.PasswordFile != filepath.Join(dir, "users/passwd") || c.Broker.ACLFile != filepath.Join(dir, "conf.d/acl") {
		t.Errorf("got %s and %s", c.Broker.PasswordFile, c.Broker.ACLFile)
	}
	// The file is no secret that is read into the configuration.
	text := encodeYAML(t, c)
	if !strings.Contains(text, "password_file: "+c.Broker.PasswordFile) || strings.Contains(text, mask) || strings.Contains(text, "$7$") {
		t.Errorf("shown as\n%s", text)
	}
}

func TestMistakesInAccessFilesHaveTheirPlace(t *testing.T) {
	_, errs := loadFiles(t, map[string]string{
		"c.yaml": "broker:\n  password_file: passwd\n  acl_file: acl\n",
		"passwd": "# users\nalice:secret\nbob\n",
		"acl":    "user\ntopic read a/#\n",
	})
	for _, want := range []string{"passwd:2:1: user \"alice\"", "passwd:3:1: ", "acl:1:1: "} {
		if !slices.ContainsFunc(errs, func(e string) bool { return strings.HasPrefix(e, want) }) {
			t.Errorf("got %q, want one that begins with %q", errs, want)
		}
	}
	if len(errs) != 3 || strings.Contains(strings.Join(errs, ""), "secret") {
		t.Errorf("got %q, want three and no password", errs)
	}
	_, errs = loadFiles(t, map[string]string{"c.yaml": "broker: {password_file: nowhere, acl_file: [a]}\n"})
	if len(errs) != 2 || !strings.HasSuffix(errs[0], "broker.password_file: nowhere: there is no such file") || !strings.Contains(errs[1], "broker.acl_file") {
		t.Errorf("got %q", errs)
	}
}

func TestWhoMayConnectHasToBeSaid(t *testing.T) {
	for conf, want := range map[string]string{
		"{}": "",
		"{listeners: [{address: 'tcp://0.0.0.0:1883'}]}":                         "c.yaml:1:32: broker.listeners[0].address: ",
		"{listeners: [{address: 'tcp://0.0.0.0:1883'}], allow_anonymous: true}":  "",
		"{listeners: [{address: 'tcp://0.0.0.0:1883'}], allow_anonymous: false}": "c.yaml:1:32: broker.listeners[0].address: ",
		"{listeners: [{address: 'tcp://0.0.0.0:1883'}], password_file: passwd}":  "",
		"{allow_anonymous: false}":                                               "c.yaml:1:27: broker.allow_anonymous: ",
		"{allow_anonymous: false, password_file: passwd}":                        "",
	} {
		_, errs := loadFiles(t, map[string]string{"c.yaml": "broker: " + conf + "\n", "passwd": ""})
		if got := strings.Join(errs, "\n"); (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", conf, got, want)
		}
	}
}
