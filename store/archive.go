package store

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// archiveFormat is that of an archive, not of the files in it.
const archiveFormat = 1

const (
	infoName     = "tidegate-backup.json" // the first file of an archive
	manifestName = "manifest.json"        // the last one; without it the archive is cut off
	dataPrefix   = "data/"                // in front of the names below the directory

	// pinLimit bounds how long state.db and the newest segment may take: as long as
	// they are read, commits take new pages and may have to wait.
	pinLimit = 30 * time.Second

	// maxMetaFile bounds what is read of the first and the last file.
	maxMetaFile = 16 << 20
)

// BackupInfo says what an archive is.
type BackupInfo struct {
	Format  int       `json:"format"`  // of the archive
	Gateway string    `json:"gateway"` // its name
	Version string    `json:"version"` // of the program
	Made    time.Time `json:"made"`    // by the clock of the gateway
}

// Manifest is the list of the files in an archive.
type Manifest struct {
	Files []ArchivedFile `json:"files"`
	Lacks []Lack         `json:"lacks"` // what could not be read when the archive was made
}

// ArchivedFile is one file of the directory.
type ArchivedFile struct {
	Name   string `json:"name"` // below the directory
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Lack is a file, or part of one, that the disk did not give.
type Lack struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// ErrSlowReceiver means that whoever takes an archive does not take its first files
// within half a minute.
var ErrSlowReceiver = errors.New("the first files of the archive, state.db and the newest segment, were not taken within 30s: write to a faster disk first")

// archive writes files one behind the other.
type archive struct {
	tar      *tar.Writer
	manifest Manifest
	sum      hash.Hash // of the file under way
	until    time.Time // when it is too late; zero: never
}

// Write takes a part of the file that begin began.
func (a *archive) Write(b []byte) (int, error) {
	if !a.until.IsZero() && time.Now().After(a.until) {
		return 0, ErrSlowReceiver
	}
	a.sum.Write(b)
	return a.tar.Write(b)
}

// begin begins a file.
func (a *archive) begin(name string, size int64) error {
	a.sum = sha256.New()
	return a.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600, ModTime: time.Now().Truncate(time.Second)})
}

// end notes the file that begin began.
func (a *archive) end(name string, size int64) {
	a.manifest.Files = append(a.manifest.Files, ArchivedFile{Name: name, Size: size, SHA256: hex.EncodeToString(a.sum.Sum(nil))})
}

// lacks notes what the disk does not give.
func (a *archive) lacks(name string, why error) {
	a.manifest.Lacks = append(a.manifest.Lacks, Lack{name, why.Error()})
}

// meta writes a file about the archive itself.
func (a *archive) meta(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := a.begin(name, int64(len(text))); err != nil {
		return err
	}
	_, err = a.Write(text)
	return err
}

// tx writes a bbolt file as tx sees it.
func (a *archive) tx(name string, tx *bolt.Tx) error {
	name = filepath.ToSlash(name)
	if err := a.begin(dataPrefix+name, tx.Size()); err != nil {
		return err
	}
	if _, err := tx.WriteTo(a); err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	a.end(name, tx.Size())
	return nil
}

// bytes writes a file with content, if there is any.
func (a *archive) bytes(name string, content []byte) error {
	if len(content) == 0 {
		return nil
	}
	if err := a.begin(dataPrefix+name, int64(len(content))); err != nil {
		return err
	}
	if _, err := a.Write(content); err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	a.end(name, int64(len(content)))
	return nil
}

// file writes an open file.
func (a *archive) file(f pinnedFile) error {
	name := filepath.ToSlash(f.name)
	info, err := f.Stat()
	if err != nil {
		a.lacks(name, err)
		return nil
	}
	if err := a.begin(dataPrefix+name, info.Size()); err != nil {
		return err
	}
	lack, err := copyPadded(a, f, info.Size())
	if err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	if lack != nil {
		a.lacks(name, lack)
	}
	a.end(name, info.Size())
	return nil
}

// copyPadded copies size bytes. In place of a page that cannot be read it writes
// zeros, and returns the first reason.
func copyPadded(to io.Writer, from io.ReaderAt, size int64) (lack, err error) {
	buf := make([]byte, chunkBytes)
	for at := int64(0); at < size; at += chunkBytes {
		part := buf[:min(chunkBytes, size-at)]
		if n, err := from.ReadAt(part, at); n < len(part) {
			readPages(from, part, at)
			if lack == nil {
				lack = err
			}
		}
		if _, err := to.Write(part); err != nil {
			return lack, err
		}
	}
	return lack, nil
}

// readPages fills part page by page, with zeros where that fails.
func readPages(from io.ReaderAt, part []byte, at int64) {
	for page := range slices.Chunk(part, pageSize) {
		n, _ := from.ReadAt(page, at) // the caller has the reason
		clear(page[n:])
		at += int64(len(page))
	}
}

// ErrBadArchive means that an archive is cut off, damaged, or none of ours.
var ErrBadArchive = errors.New("the archive cannot be used")

// bad returns why an archive cannot be used.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadArchive, fmt.Errorf(format, args...))
}

// CheckArchive reads an archive to its end and returns what it is, if it is complete
// and undamaged.
func CheckArchive(r io.Reader) (BackupInfo, *Manifest, error) {
	return readArchive(r, func(string) (io.WriteCloser, error) { return discard{io.Discard}, nil })
}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// readArchive reads an archive to its end, with its files into what create returns
// for their names, and checks everything.
func readArchive(r io.Reader, create func(name string) (io.WriteCloser, error)) (info BackupInfo, m *Manifest, err error) {
	in := tar.NewReader(r)
	if err := readMetaFile(in, infoName, &info); err != nil {
		return info, nil, err
	}
	if info.Format > archiveFormat {
		return info, nil, fmt.Errorf("the archive has format %d, this program reads up to %d: %w", info.Format, archiveFormat, ErrNewerFormat)
	}
	var read []ArchivedFile
	for {
		h, err := in.Next()
		if err != nil {
			return info, nil, bad("it is cut off or damaged behind %d files: %w", len(read), unexpected(err))
		}
		if h.Name == manifestName {
			break
		}
		f, err := unpack(in, h, create)
		if err != nil {
			return info, nil, err
		}
		read = append(read, f)
	}
	m = new(Manifest)
	if err := decodeMeta(in, manifestName, m); err != nil {
		return info, nil, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // what is behind the end
		return info, nil, err
	}
	return info, m, m.compare(read)
}

// unexpected makes the end of an archive an error that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func readMetaFile(in *tar.Reader, name string, to any) error {
	h, err := in.Next()
	if err != nil || h.Name != name {
		return bad("it does not begin as one made by backup")
	}
	return decodeMeta(in, name, to)
}

func decodeMeta(in io.Reader, name string, to any) error {
	text, err := io.ReadAll(io.LimitReader(in, maxMetaFile))
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return bad("%s: %w", name, unexpected(err))
	}
	return nil
}

// unpack writes one file of the archive.
func unpack(in io.Reader, h *tar.Header, create func(string) (io.WriteCloser, error)) (f ArchivedFile, err error) {
	name, ok := strings.CutPrefix(h.Name, dataPrefix)
	if !ok || h.Typeflag != tar.TypeReg || !lawful(name) {
		return f, bad("it has a file %q, which is none of a data directory", h.Name)
	}
	out, err := create(name)
	if err != nil {
		return f, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), in)
	if closing := out.Close(); err == nil {
		err = closing
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = bad("it is cut off in %q: %w", name, err)
	}
	return ArchivedFile{Name: name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// lawful reports whether name can be a file of a data directory: in it, or a
// segment in its journal.
func lawful(name string) bool {
	if base, ok := strings.CutPrefix(name, journalDir+"/"); ok {
		_, segment := parseSegment(base)
		return segment
	}
	return filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`) && name != "." && name != journalDir && name != restoreDir
}

// compare holds what was read against the list.
func (m *Manifest) compare(read []ArchivedFile) error {
	if len(read) != len(m.Files) {
		return bad("it has %d files, its list %d", len(read), len(m.Files))
	}
	for i, f := range read {
		if f != m.Files[i] {
			return bad("%q is damaged: its length or checksum is not that of the list", f.Name)
		}
	}
	return nil
}
