package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"tidegate/broker/auth"
	"tidegate/internal/tty"
)

// PasswdCmd changes a password file.
type PasswdCmd struct {
	File   string
	User   string
	Delete bool
}

func (c *PasswdCmd) define(p *params) {
	p.BoolVarP(&c.Delete, "delete", "D", false, "Delete the user instead.")
	p.arg(&c.File, "FILE", "Password file, made if it does not exist.")
	p.arg(&c.User, "USER", "User to add or change.")
}

// Help is shown by --help.
func (PasswdCmd) Help() string {
	return `Adds a user to a password file, or changes the password of one. It asks twice for the
password, which is not shown. If the input is no terminal, its first line is the password.

The file has the format of mosquitto_passwd, and either program reads the other's. A
gateway that is running goes on with the passwords it has until it reads the file again.

Examples:

    tidegate passwd /etc/tidegate/passwd alice
    tidegate passwd /etc/tidegate/passwd alice < alice.secret
    tidegate passwd -D /etc/tidegate/passwd alice`
}

// Run changes the file, and says nothing if all goes well.
func (c *PasswdCmd) Run(ctx context.Context, std stdio) error {
	if err := auth.CheckUser(c.User); err != nil {
		return &usageError{"passwd", err} // before somebody types a password
	}
	if c.Delete {
		return auth.DeleteUser(c.File, c.User)
	}
	password, err := newPassword(ctx, std)
	if err != nil {
		return err
	}
	return auth.SetPassword(c.File, c.User, password)
}

// newPassword asks the person at the terminal, or reads a line.
func newPassword(ctx context.Context, std stdio) ([]byte, error) {
	if terminal, ok := std.In.(*os.File); ok && tty.IsTerminal(terminal) {
		return askTwice(ctx, terminal, std.Err)
	}
	return firstLine(std.In)
}

func askTwice(ctx context.Context, terminal *os.File, out io.Writer) ([]byte, error) {
	password, err := tty.ReadPassword(ctx, terminal, out, "Password: ")
	if err != nil {
		return nil, err
	}
	again, err := tty.ReadPassword(ctx, terminal, out, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(password, again) {
		return nil, errors.New("the two passwords differ; nothing was changed")
	}
	return password, nil
}

// maxPasswordLine bounds what is read: MQTT has no longer passwords.
const maxPasswordLine = 64 << 10

func firstLine(in io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(in, maxPasswordLine+1)).ReadBytes('\n')
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read the password from the input: %w", err)
	case len(line) > maxPasswordLine:
		return nil, errors.New("the first line of the input is too long to be a password")
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) == 0 {
		return nil, errors.New("there is no password in the first line of the input")
	}
	return line, nil
}
