package keyroom

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"syscall"

	"github.com/chancery-ca/chancery/crashpoint"
)

// A journal is a file of records. Each is the length of its body (4 octets big-endian), a check of that
// length (4 octets), the chain hash SHA-256(previous chain hash, body), and the body. The first chain
// hash starts from the identity of the room and its log, so the journal of another room does not
// continue ours. The check lets a reader trust a length in front of a body that is torn: damage to a
// length in the middle must not pass for a torn end.
type journal struct {
	file    *os.File
	end     int64
	records []place
	start   [sha256.Size]byte
}

// place is where a record stands and the first leaf in it.
type place struct {
	offset int64
	first  int64
	chain  [sha256.Size]byte
}

const recordHead = 4 + 4 + sha256.Size

// maxRecord bounds what is read for one record: a batch of leaves and its signatures.
const maxRecord = 64 << 20

// errLocked: another process has the journal open.
var errLocked = errors.New("another key room runs on this journal; a CA key lives in exactly one")

func journalStart(room, origin string) [sha256.Size]byte {
	return sha256.Sum256([]byte("chancery journal v1\n" + room + "\n" + origin + "\n"))
}

// createJournal makes a journal with one record. It fails if the file exists.
func createJournal(path, room, origin string, first record) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("creating the journal: %w", err)
	}
	j := &journal{file: f, start: journalStart(room, origin)}
	if err := j.append(first); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// openJournal reads the journal at path and gives each record to replay, in order. A torn record at the
// end is cut off: no answer that told of it has left the room.
func openJournal(path, room, origin string, replay func(record) error) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w (a missing journal is never made anew: restore the key room from its backup)", err)
	}
	j := &journal{file: f, start: journalStart(room, origin)}
	if err := j.load(replay); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

func (j *journal) load(replay func(record) error) error {
	if err := syscall.Flock(int(j.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errLocked
	}
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	in := bufio.NewReaderSize(j.file, 1<<20)
	for j.end < info.Size() {
		body, chain, err := j.readNext(in, info.Size())
		if err != nil {
			return j.cutTail(err)
		}
		r, err := decodeRecord(body)
		if err != nil {
			return fmt.Errorf("record %d of the journal: %w", len(j.records)+1, err)
		}
		if r.sequence != int64(len(j.records))+1 {
			return fmt.Errorf("record %d of the journal calls itself %d", len(j.records)+1, r.sequence)
		}
		if err := replay(r); err != nil {
			return fmt.Errorf("record %d of the journal: %w", r.sequence, err)
		}
		j.records = append(j.records, place{j.end, r.first, chain})
		j.end += int64(recordHead + len(body))
	}
	if len(j.records) == 0 {
		return errors.New("the journal is empty: restore the key room from its backup")
	}
	return nil
}

// errTorn: the file ends in a record that was not wholly written.
var errTorn = errors.New("torn record")

// readNext reads the record at j.end, of which in is the reader.
func (j *journal) readNext(in *bufio.Reader, size int64) (body []byte, chain [sha256.Size]byte, err error) {
	head, err := in.Peek(int(min(recordHead, size-j.end)))
	if err != nil {
		return nil, chain, err
	}
	if len(head) < recordHead {
		return nil, chain, errTorn
	}
	n := binary.BigEndian.Uint32(head)
	switch end := j.end + recordHead + int64(n); {
	case binary.BigEndian.Uint32(head[4:]) != j.checkLength(n):
		return nil, chain, j.onlyZeros(in)
	case n > maxRecord:
		return nil, chain, fmt.Errorf("it claims %d octets", n)
	case end > size:
		return nil, chain, errTorn
	}
	want := [sha256.Size]byte(head[8:])
	if _, err := in.Discard(recordHead); err != nil {
		return nil, chain, err
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, chain, err
	}
	switch chain = chainAfter(j.last(), body); {
	case chain == want:
		return body, chain, nil
	case j.end+recordHead+int64(n) == size:
		return nil, chain, errTorn
	}
	return nil, chain, errors.New("its hash does not continue the chain")
}

// onlyZeros tells a file that had grown but not been filled when the power went from damage.
func (j *journal) onlyZeros(in io.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(in, maxRecord))
	if err != nil {
		return err
	}
	if len(bytes.Trim(rest, "\x00")) == 0 {
		return errTorn
	}
	return errors.New("its head is damaged or belongs to another room")
}

// cutTail drops a record that was not wholly written; nothing that told of it has left the room.
func (j *journal) cutTail(cause error) error {
	if !errors.Is(cause, errTorn) || len(j.records) == 0 {
		return fmt.Errorf("record %d of the journal, at octet %d, cannot be read (%w): restore the key room from its backup", len(j.records)+1, j.end, cause)
	}
	if err := j.file.Truncate(j.end); err != nil {
		return fmt.Errorf("cutting a torn record off the journal: %w", err)
	}
	return j.file.Sync()
}

func (j *journal) checkLength(n uint32) uint32 {
	previous := j.last()
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(previous[:], n))
	return binary.BigEndian.Uint32(sum[:])
}

func (j *journal) last() [sha256.Size]byte {
	if len(j.records) == 0 {
		return j.start
	}
	return j.records[len(j.records)-1].chain
}

// chainAfter gives the chain hash of the record that follows previous.
func chainAfter(previous [sha256.Size]byte, body []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(previous[:])
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// append makes r durable. After an error the state of the file is unknown, and the process must end: an
// fsync error is not a rollback.
func (j *journal) append(r record) error {
	r.sequence = int64(len(j.records)) + 1
	body, err := r.encode()
	if err != nil {
		return fmt.Errorf("encoding a journal record: %w", err)
	}
	chain := chainAfter(j.last(), body)
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, recordHead+len(body)), uint32(len(body)))
	frame = binary.BigEndian.AppendUint32(frame, j.checkLength(uint32(len(body))))
	frame = append(append(frame, chain[:]...), body...)
	crashpoint.Before("journal.append")
	if _, err := j.file.WriteAt(frame, j.end); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("syncing the journal: %w", err)
	}
	crashpoint.After("journal.append")
	j.records = append(j.records, place{j.end, r.first, chain})
	j.end += int64(len(frame))
	return nil
}

// chainAt is the chain hash after the record with this sequence number, counted from 1.
func (j *journal) chainAt(sequence int64) (chain [sha256.Size]byte, ok bool) {
	if sequence < 1 || sequence > int64(len(j.records)) {
		return chain, false
	}
	return j.records[sequence-1].chain, true
}

// read gives the record with this sequence number back from the disk.
func (j *journal) read(sequence int64) (record, error) {
	p, previous := j.records[sequence-1], j.start
	if sequence > 1 {
		previous = j.records[sequence-2].chain
	}
	end := j.end
	if sequence < int64(len(j.records)) {
		end = j.records[sequence].offset
	}
	body := make([]byte, end-p.offset-recordHead)
	if _, err := j.file.ReadAt(body, p.offset+recordHead); err != nil {
		return record{}, fmt.Errorf("reading record %d of the journal: %w", sequence, err)
	}
	if chainAfter(previous, body) != p.chain {
		return record{}, fmt.Errorf("record %d of the journal has changed since it was written", sequence)
	}
	return decodeRecord(body)
}

// holding gives the record that holds the leaf at index, which the room must have read.
func (j *journal) holding(index int64) (record, error) {
	after := sort.Search(len(j.records), func(i int) bool { return j.records[i].first > index })
	return j.read(int64(after))
}

func (j *journal) close() error { return j.file.Close() }
