package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNoUser means that a password file does not have the user who is to be
// deleted.
var ErrNoUser = errors.New("there is no such user")

const maxUser = 65535 // bytes; its length travels in two

// SetPassword gives user a password in the file path, which is made if it does
// not exist, readable for its owner only. Every other line stays as it is, and so
// do owner and mode. The file is replaced at once: a crash leaves the old one or
// the new one, and two writers take turns.
func SetPassword(path, user string, password []byte) error {
	if err := CheckUser(user); err != nil {
		return err
	}
	switch {
	case len(password) == 0:
		return errors.New("the password is empty")
	case len(password) > maxPassword:
		return fmt.Errorf("the password has %d bytes, at most %d are possible", len(password), maxPassword)
	}
	h, err := newHash(password)
	if err != nil {
		return fmt.Errorf("hash the password of user %q: %w", user, err)
	}
	return edit(path, func(text []byte) ([]byte, error) {
		text, _ = replaceUser(text, user, user+":"+h.String()+"\n")
		return text, nil
	})
}

// DeleteUser removes user from the file path as [SetPassword] changes it. The
// error wraps [ErrNoUser] if the file does not have the user.
func DeleteUser(path, user string) error {
	if err := CheckUser(user); err != nil {
		return err
	}
	return edit(path, func(text []byte) ([]byte, error) {
		text, found := replaceUser(text, user, "")
		if !found {
			return nil, fmt.Errorf("delete user %q from %s: %w", user, path, ErrNoUser)
		}
		return text, nil
	})
}

// CheckUser reports why a user cannot be called so in a password file, or nil.
func CheckUser(user string) error {
	switch {
	case user == "":
		return errors.New("the user name is empty")
	case len(user) > maxUser:
		return fmt.Errorf("the user name has %d bytes, at most %d are possible", len(user), maxUser)
	case !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl):
		return fmt.Errorf("the user name %q has characters that are no text", user)
	case strings.Contains(user, ":"):
		return fmt.Errorf("the user name %q has a colon, which ends the name in a password file", user)
	case user[0] == '#':
		return fmt.Errorf("the user name %q begins with #, which makes its line a comment", user)
	case strings.Trim(user, blanks) != user:
		return fmt.Errorf("the user name %q begins or ends with a blank", user)
	}
	return nil
}

// replaceUser puts line in the place of the first line of user and drops further
// ones. If there is none, line comes last. Nobody else's line is touched.
func replaceUser(text []byte, user, line string) (replaced []byte, found bool) {
	var b bytes.Buffer
	for old := range bytes.Lines(text) {
		name, _, ok := cutUser(string(old))
		switch {
		case !ok || name != user: // no user's name begins with the # of a comment
			b.Write(old)
		case !found:
			b.WriteString(line)
			found = true
		}
	}
	if !found {
		if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	return b.Bytes(), found
}

// edit replaces the contents of the file path by what change makes of them.
func edit(path string, change func(text []byte) ([]byte, error)) error {
	target, err := filepath.EvalSymlinks(path) // a link stays one
	if errors.Is(err, fs.ErrNotExist) {
		target, err = path, nil
	}
	if err != nil {
		return fmt.Errorf("find the password file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("open the folder of the password file: %w", err)
	}
	defer dir.Close() // ends the lock
	lock(dir)
	old, text, err := readOld(target)
	if err != nil {
		return err
	}
	if text, err = change(text); err != nil {
		return err
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s would have more than %d bytes", path, maxFile)
	}
	return replace(dir, target, old, text)
}

// readOld reads the file at path. Without one, old is nil.
func readOld(path string) (old fs.FileInfo, text []byte, err error) {
	old, err = os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read the password file: %w", err)
	case !old.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is not a regular file, so it cannot be replaced", path)
	}
	if text, err = readFile(path); err != nil {
		return nil, nil, fmt.Errorf("read the password file: %w", err)
	}
	return old, text, nil
}

// replace writes text aside, with owner and mode of old, and puts it into the
// place of path in the folder dir.
func replace(dir *os.File, path string, old fs.FileInfo, text []byte) error {
	aside, err := os.CreateTemp(dir.Name(), ".passwd-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the password file aside: %w", err)
	}
	defer os.Remove(aside.Name()) // fails if all went well
	if err := writeAside(aside, old, text); err != nil {
		return fmt.Errorf("write the password file aside: %w", err)
	}
	if err := os.Rename(aside.Name(), path); err != nil {
		return fmt.Errorf("replace the password file: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync the folder of the password file: %w", err)
	}
	return nil
}

// writeAside gives aside its owner before it has contents, so that nobody else reads
// them.
func writeAside(aside *os.File, old fs.FileInfo, text []byte) error {
	defer aside.Close()
	if old != nil {
		if err := keepOwner(aside, old); err != nil {
			return err
		}
	}
	if _, err := aside.Write(text); err != nil {
		return err
	}
	if err := aside.Sync(); err != nil {
		return err
	}
	return aside.Close()
}

// keepOwner gives aside the owner and the mode of old, where they differ.
func keepOwner(aside *os.File, old fs.FileInfo) error {
	if err := chown(aside, old); err != nil {
		return fmt.Errorf("keep the owner of %s (run this as root or as its owner): %w", old.Name(), err)
	}
	now, err := aside.Stat()
	if err != nil || now.Mode().Perm() == old.Mode().Perm() {
		return err
	}
	return aside.Chmod(old.Mode().Perm())
}
