package auth

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// writeIterations is the cost of the hashes that we write. One iteration is
	// two blocks of SHA-512, with all around them about 33,000 instructions of
	// ARMv6, so a Pi Zero (1 GHz, one instruction at a time) takes 0.17 s for a
	// password at one cycle each and 0.5 s at three. docs/auth.md has the
	// figures behind this.
	writeIterations = 5000

	// maxIterations is the highest cost that we read: what somebody set too
	// high by far would keep the gateway busy for minutes with one password.
	maxIterations = 1_000_000

	// saltSize is that of mosquitto 2.0, which reads no other.
	saltSize = 12

	maxSalt     = 1024
	maxPassword = 65535 // its length travels in two bytes (MQTT 3.1.1, section 3.1.3.5)
)

// hash is what a password file keeps of a password: $7$, PBKDF2 with
// HMAC-SHA-512, or mosquitto's older $6$, one SHA-512 of password and salt.
type hash struct {
	iterations int // 0: $6$
	salt       []byte
	sum        []byte // sha512.Size bytes
}

// newHash hashes a password with a new salt.
func newHash(password []byte) (hash, error) {
	h := hash{iterations: writeIterations, salt: make([]byte, saltSize)}
	rand.Read(h.salt) // never fails: the process ends instead
	var err error
	h.sum, err = h.derive(password)
	return h, err
}

// matches reports whether h was made of password.
func (h hash) matches(password []byte) bool {
	sum, err := h.derive(password)
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// derive hashes password as h says. It fails only where a FIPS 140 mode forbids it.
func (h hash) derive(password []byte) ([]byte, error) {
	if h.iterations > 0 {
		return pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, sha512.Size)
	}
	d := sha512.New()
	d.Write(password)
	d.Write(h.salt)
	return d.Sum(nil), nil
}

// String is the form in the file.
func (h hash) String() string {
	salt, sum := base64.StdEncoding.EncodeToString(h.salt), base64.StdEncoding.EncodeToString(h.sum)
	if h.iterations == 0 {
		return "$6$" + salt + "$" + sum
	}
	return "$7$" + strconv.Itoa(h.iterations) + "$" + salt + "$" + sum
}

// parseHash reads the form in the file. Its errors do not repeat s, which may be
// a password that somebody forgot to hash.
func parseHash(s string) (hash, error) {
	fields := strings.Split(s, "$")
	switch {
	case len(fields) < 3 || fields[0] != "":
		return hash{}, errors.New("the password is not hashed; set it with the command passwd")
	case fields[1] == "7" && len(fields) == 5:
		return parsePBKDF2(fields[2], fields[3], fields[4])
	case fields[1] == "6" && len(fields) == 4:
		return parseSums(0, fields[2], fields[3])
	case fields[1] == "7":
		return hash{}, errors.New("a $7$ hash has the form $7$iterations$salt$hash; set the password again with the command passwd")
	case fields[1] == "6":
		return hash{}, errors.New("a $6$ hash has the form $6$salt$hash; set the password again with the command passwd")
	}
	return hash{}, errors.New("the kind of the hash is not known, only $7$ and $6$ are; set the password again with the command passwd")
}

func parsePBKDF2(count, salt, sum string) (hash, error) {
	iterations, err := strconv.Atoi(count)
	if err != nil || iterations < 1 || iterations > maxIterations {
		return hash{}, fmt.Errorf("the iterations of the hash are not a number from 1 to %d; set the password again with the command passwd", maxIterations)
	}
	return parseSums(iterations, salt, sum)
}

func parseSums(iterations int, salt, sum string) (hash, error) {
	h := hash{iterations: iterations}
	var err error
	if h.salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(h.salt) == 0 || len(h.salt) > maxSalt {
		return hash{}, fmt.Errorf("the salt is not 1 to %d bytes in base64; set the password again with the command passwd", maxSalt)
	}
	if h.sum, err = base64.StdEncoding.DecodeString(sum); err != nil || len(h.sum) != sha512.Size {
		return hash{}, fmt.Errorf("the hash is not %d bytes in base64; set the password again with the command passwd", sha512.Size)
	}
	return h, nil
}
