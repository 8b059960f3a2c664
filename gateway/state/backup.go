package state

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"
)

// A backup is the line of backupHead, then for every entry in key order a 1, the key and the value (each behind its
// length as a uvarint) and the end of its time as Unix seconds (a uvarint, 0 for never), then a 0, the number of
// entries as a uvarint, and the SHA-256 of everything before it. The digest stands at the end because a backup is
// written as a stream; it tells a whole backup from one that was cut short between two entries.
const backupHead = "postern-backup 1\n"

// WriteBackup writes entries as a backup. A fault among the entries ends it.
func WriteBackup(ctx context.Context, w Writer, entries iter.Seq2[Entry, error]) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(w, 64<<10)
	var failed error
	write := func(b []byte) {
		sum.Write(b)
		if _, err := out.Write(b); err != nil && failed == nil {
			failed = fmt.Errorf("write backup: %w", err)
		}
	}
	write([]byte(backupHead))
	var head []byte
	count := uint64(0)
	for e, err := range entries {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		end := uint64(0)
		if !e.Expires.IsZero() {
			end = uint64(e.Expires.Unix())
		}
		head = binary.AppendUvarint(append(head[:0], 1), uint64(len(e.Key)))
		write(head)
		write(e.Key)
		write(binary.AppendUvarint(head[:0], uint64(len(e.Value))))
		write(e.Value)
		write(binary.AppendUvarint(head[:0], end))
		count++
		if failed != nil {
			return failed
		}
	}
	write(binary.AppendUvarint(append(head[:0], 0), count))
	digest := sum.Sum(nil)
	write(digest)
	if failed != nil {
		return failed
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// ReadBackup reads what WriteBackup wrote and hands it to commit in batches within the limits; entries whose time is
// over are left out. Only a nil error says that the backup was whole: whoever calls must undo what was committed
// otherwise. A batch is used again after commit returns, its slices are not.
func ReadBackup(ctx context.Context, r Reader, commit func(*Batch) error) error {
	in := &backupReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	head := make([]byte, len(backupHead))
	if err := in.full(head); err != nil {
		return err
	}
	if string(head) != backupHead {
		return fmt.Errorf("%w: it does not begin like one", ErrBackup)
	}
	var batch Batch
	size, count := 0, uint64(0)
	now := time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		mark, err := in.ReadByte()
		if err != nil {
			return err
		}
		if mark == 0 {
			break
		}
		if mark != 1 {
			return fmt.Errorf("%w: entry %d is damaged", ErrBackup, count)
		}
		key, err := in.octets(MaxKey)
		if err != nil {
			return err
		}
		value, err := in.octets(MaxValue)
		if err != nil {
			return err
		}
		end, err := in.uvarint()
		if err != nil {
			return err
		}
		count++
		write := Write{Key: key, Value: value}
		if end != 0 {
			if end > 1<<40 {
				return fmt.Errorf("%w: entry %d is damaged", ErrBackup, count)
			}
			write.TTL = time.Unix(int64(end), 0).Sub(now)
			if write.TTL <= 0 {
				continue
			}
		}
		if size+len(key)+len(value) > MaxBatchSize || len(batch.Writes) == MaxBatch/10 {
			if err := commit(&batch); err != nil {
				return err
			}
			batch.Reset()
			size = 0
		}
		batch.Writes = append(batch.Writes, write)
		size += len(key) + len(value)
	}
	told, err := in.uvarint()
	if err != nil {
		return err
	}
	want := in.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if err := in.full(got); err != nil {
		return err
	}
	if told != count || string(got) != string(want) {
		return fmt.Errorf("%w: its digest does not match", ErrBackup)
	}
	if len(batch.Writes) == 0 {
		return nil
	}
	return commit(&batch)
}

// backupReader reads a backup and keeps its digest. Its errors wrap ErrBackup when the input ends too soon.
type backupReader struct {
	in  *bufio.Reader
	sum hash.Hash
}

// full fills b.
func (r *backupReader) full(b []byte) error {
	if _, err := io.ReadFull(r.in, b); err != nil {
		return short(err)
	}
	r.sum.Write(b)
	return nil
}

// ReadByte reads one octet; it makes the reader an io.ByteReader for encoding/binary.
func (r *backupReader) ReadByte() (byte, error) {
	c, err := r.in.ReadByte()
	if err != nil {
		return 0, short(err)
	}
	r.sum.Write([]byte{c})
	return c, nil
}

func (r *backupReader) uvarint() (uint64, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil && !errors.Is(err, ErrBackup) {
		err = fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return n, err
}

// octets reads a string behind its length, which is at most limit.
func (r *backupReader) octets(limit uint64) ([]byte, error) {
	n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: an entry of %d octets", ErrBackup, n)
	}
	b := make([]byte, n)
	return b, r.full(b)
}

// short tells an input that ended from one that could not be read.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too soon", ErrBackup)
	}
	return fmt.Errorf("read backup: %w", err)
}
