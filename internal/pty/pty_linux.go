package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Pair is the two ends of a pseudo-terminal.
type Pair struct {
	Master *os.File // the sensor's end; deadlines work
	Slave  string   // the path of the gateway's end, such as /dev/pts/7
}

// Open makes a pair whose slave passes every byte as it is: no echo, no line
// editing, no translation of line ends.
func Open() (*Pair, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK // O_NONBLOCK: so that deadlines work
	master, err := os.OpenFile("/dev/ptmx", flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open a pty: %w", err)
	}
	number, err := prepare(master)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("open a pty: %w", err)
	}
	return &Pair{Master: master, Slave: "/dev/pts/" + strconv.Itoa(number)}, nil
}

// Close hangs the line up: whoever has the slave open gets an error or the end
// of the file, and the slave's path is gone once they have closed it as well.
func (p *Pair) Close() error { return p.Master.Close() }

// prepare unlocks the slave, makes it raw and returns its number.
func prepare(master *os.File) (number int, err error) {
	conn, err := master.SyscallConn()
	if err != nil {
		return 0, err
	}
	control := conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			err = fmt.Errorf("unlock the slave: %w", err)
			return
		}
		if err = makeRaw(int(fd)); err != nil {
			err = fmt.Errorf("set raw mode: %w", err)
			return
		}
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			err = fmt.Errorf("ask for the slave's number: %w", err)
		}
	})
	if control != nil {
		return 0, control
	}
	return number, err
}

// makeRaw is cfmakeraw(3). On Linux the settings of a master are its slave's.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
