package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"tidegate/admin"
)

// The bounds of asking a gateway for its status.
const (
	statusPatience = 10 * time.Second
	maxStatus      = 16 << 20 // bytes
)

// StatusCmd shows the state of a running gateway.
type StatusCmd struct {
	URL string
	outputFlag
}

func (c *StatusCmd) define(p *params) {
	p.StringVar(&c.URL, "url", "http://127.0.0.1:8080", "`URL` of the gateway's page.")
	c.outputFlag.define(p)
}

// Help is shown by --help.
func (StatusCmd) Help() string {
	return `Shows bridges, adapters, sessions and store of the gateway at --url. The first line says
what is wrong, or "all well". Ends with 1 if the gateway does not answer.

Example:

    tidegate status --url http://127.0.0.1:8080`
}

// Run prints the state.
func (c *StatusCmd) Run(ctx context.Context, std stdio) error {
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "http" || base.Host == "" {
		return &usageError{"status", fmt.Errorf("--url %q is no address of a page: write it as http://127.0.0.1:8080", c.URL)}
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	text, err := fetchStatus(ctx, base.JoinPath("/api/v1/status").String())
	if err != nil {
		return err
	}
	var st admin.Status
	if err := json.Unmarshal(text, &st); err != nil {
		return fmt.Errorf("%s answers with something that is no status of a tidegate: check --url (%w)", c.URL, err)
	}
	if c.Output == "json" {
		_, err = std.Out.Write(text)
		return err
	}
	_, err = io.WriteString(std.Out, statusText(&st))
	return err
}

// fetchStatus returns the document at address.
func fetchStatus(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	resp, err := client.Do(req)
	if err != nil {
		return nil, unreachable(req.URL, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", address, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s: is it a tidegate? %s", address, resp.Status, reason(text))
	}
	return text, nil
}

// reason returns what an answer says about its error, "" if nothing.
func reason(text []byte) string {
	var answer struct{ Error string }
	_ = json.Unmarshal(text, &answer) // whatever it is instead helps nobody
	return printable(answer.Error)
}

// unreachable says why nobody answers, and what to do.
func unreachable(u *url.URL, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the address once more
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the gateway at %s takes the connection or drops it, but does not answer within %s: "+
			"is the machine overloaded? Look with top, and into the log: journalctl -u tidegate", u.Host, statusPatience)
	}
	return fmt.Errorf("no gateway answers at %s: is it running (systemctl status tidegate), "+
		"and is this the address at admin.listen of its configuration? (%w)", u.Host, err)
}
