package gitrepo

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Limits on a pack, beside those on single objects.
const (
	maxObjects  = 5_000_000
	maxInflated = 32 << 30 // octets that are inflated in all, some of them more than once
	maxRecent   = 32 << 20 // octets of delta bases that are remembered
	maxChain    = 4096     // deltas on deltas; git makes no longer ones (pack.depth)
)

// pack is a pack that a server sent (gitformat-pack). Only an index of it is in memory: an object is
// inflated when it is asked for.
type pack struct {
	storer.EncodedObjectStorer // what is not overridden is never called

	from     io.ReaderAt
	size     int64
	byHash   map[plumbing.Hash]*packed
	byOffset map[int64]*packed
	recent   map[*packed][]byte
	held     int // octets in recent
	inflated int64
	buffer   *bufio.Reader
	inflater io.ReadCloser
}

// packed is where an object lies in a pack.
type packed struct {
	kind  plumbing.ObjectType // of the object, after all deltas
	size  int64               // of the object
	data  int64               // where its compressed data, or that of its delta, begins
	delta int64               // octets of the delta; 0 if it is none
	base  *packed             // what the delta applies to; nil while only its hash is known
	named bool                // kind and size are the object's own, and so for all that it builds on
	depth int
}

// waiting is a delta whose base was not named yet.
type waiting struct {
	*packed
	ref plumbing.Hash // of the base
}

// readPack indexes a pack. Every object is inflated once and named by its own hash, so that a pack
// cannot pass one object off as another.
func readPack(ctx context.Context, from io.ReaderAt, size int64) (*pack, error) {
	p := &pack{
		from: from, size: size, byHash: map[plumbing.Hash]*packed{}, byOffset: map[int64]*packed{},
		recent: map[*packed][]byte{}, buffer: bufio.NewReader(nil),
	}
	var head [12]byte
	if _, err := from.ReadAt(head[:], 0); err != nil || string(head[:4]) != "PACK" || binary.BigEndian.Uint32(head[4:]) != 2 {
		return nil, fmt.Errorf("%w: it is no pack of version 2", ErrHostile)
	}
	count := binary.BigEndian.Uint32(head[8:])
	if count > maxObjects {
		return nil, fmt.Errorf("%w: a pack of %d objects", ErrHostile, count)
	}
	var later []waiting
	offset := int64(len(head))
	for range count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, wait, err := p.index(offset)
		if err != nil {
			return nil, fmt.Errorf("%w: the pack at octet %d: %w", ErrHostile, offset, err)
		}
		if wait != nil {
			later = append(later, *wait)
		}
		offset = next
	}
	if offset != size-sha1.Size {
		return nil, fmt.Errorf("%w: the pack has %d octets and should have %d", ErrHostile, size, offset+sha1.Size)
	}
	return p, p.settle(ctx, later)
}

// settle names the deltas whose base came after them.
func (p *pack) settle(ctx context.Context, later []waiting) error {
	for len(later) > 0 {
		var still []waiting
		for _, w := range later {
			if err := ctx.Err(); err != nil {
				return err
			}
			if w.base == nil {
				w.base = p.byHash[w.ref]
			}
			if w.base == nil || !w.base.named {
				still = append(still, w)
				continue
			}
			if err := p.name(w.packed); err != nil {
				return fmt.Errorf("%w: the pack: %w", ErrHostile, err)
			}
		}
		if len(still) == len(later) {
			return fmt.Errorf("%w: the pack has deltas on objects that are not in it", ErrHostile)
		}
		later = still
	}
	return nil
}

// index reads one entry and returns where the next begins.
func (p *pack) index(offset int64) (next int64, wait *waiting, err error) {
	r := p.at(offset)
	kind, size, err := entryHead(r)
	if err != nil {
		return 0, nil, err
	}
	e := &packed{kind: kind, size: size}
	p.byOffset[offset] = e
	var ref plumbing.Hash
	switch kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		e.data = offset + r.n
		hash := plumbing.NewHasher(kind, size)
		if err := p.inflate(r, hash, size); err != nil {
			return 0, nil, err
		}
		p.byHash[hash.Sum()], e.named = e, true
		return offset + r.n, nil, nil
	case plumbing.OFSDeltaObject:
		back, err := deltaOffset(r)
		if err != nil {
			return 0, nil, err
		}
		if e.base = p.byOffset[offset-back]; e.base == nil || back <= 0 {
			return 0, nil, errors.New("a delta on what is no object")
		}
	case plumbing.REFDeltaObject:
		if _, err := io.ReadFull(r, ref[:]); err != nil {
			return 0, nil, err
		}
		e.base = p.byHash[ref]
	default:
		return 0, nil, fmt.Errorf("an entry of type %d", kind)
	}
	if size == 0 || size > maxFile {
		return 0, nil, fmt.Errorf("a delta of %d octets", size)
	}
	e.data, e.delta = offset+r.n, size
	if err := p.inflate(r, io.Discard, size); err != nil {
		return 0, nil, err
	}
	if e.base == nil || !e.base.named {
		return offset + r.n, &waiting{e, ref}, nil
	}
	return offset + r.n, nil, p.name(e)
}

// name applies a delta whose base is known, to learn the hash. What is too large to be read is left
// without a name; it is no file of ours.
func (p *pack) name(e *packed) error {
	e.kind, e.depth, e.named = e.base.kind, e.base.depth+1, true
	if e.depth > maxChain {
		return fmt.Errorf("more than %d deltas on one another", maxChain)
	}
	if e.base.size > maxFile {
		e.size = maxFile + 1
		return nil
	}
	content, err := p.content(e)
	if errors.Is(err, errTooLarge) {
		e.size = maxFile + 1
		return nil
	}
	if err != nil {
		return err
	}
	e.size = int64(len(content))
	p.byHash[plumbing.ComputeHash(e.kind, content)] = e
	return nil
}

// content inflates an object of at most maxFile octets.
func (p *pack) content(e *packed) ([]byte, error) {
	if have, ok := p.recent[e]; ok {
		return have, nil
	}
	if e.size > maxFile {
		return nil, errTooLarge
	}
	size := e.size
	if e.delta > 0 {
		size = e.delta
	}
	var raw bytes.Buffer
	if err := p.inflate(p.at(e.data), &raw, size); err != nil {
		return nil, err
	}
	content := raw.Bytes()
	if e.delta > 0 {
		base, err := p.content(e.base)
		if err != nil {
			return nil, err
		}
		if content, err = patch(base, content); err != nil {
			return nil, err
		}
	}
	if len(content) <= maxRecent/8 {
		if p.held += len(content); p.held > maxRecent {
			clear(p.recent)
			p.held = len(content)
		}
		p.recent[e] = content
	}
	return content, nil
}

// inflate copies exactly size octets.
func (p *pack) inflate(r *counter, to io.Writer, size int64) error {
	if p.inflated += size; size < 0 || p.inflated > maxInflated {
		return errors.New("it inflates to more than is read")
	}
	var err error
	if p.inflater == nil {
		p.inflater, err = zlib.NewReader(r)
	} else {
		err = p.inflater.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(to, io.LimitReader(p.inflater, size+1))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d octets instead of %d", n, size)
	}
	return nil
}

// counter reads without reading ahead of what it gave, as far as the count goes.
type counter struct {
	from *bufio.Reader
	n    int64
}

func (p *pack) at(offset int64) *counter {
	p.buffer.Reset(io.NewSectionReader(p.from, offset, p.size-offset))
	return &counter{from: p.buffer}
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.from.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// entryHead reads an entry's type and size: three bits and four, then seven an octet.
func entryHead(r io.ByteReader) (plumbing.ObjectType, int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	kind, size := plumbing.ObjectType(b>>4&7), int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, err
		}
		if shift > 53 {
			return 0, 0, errors.New("a size beyond all measure")
		}
		size |= int64(b&0x7f) << shift
	}
	return kind, size, nil
}

// deltaOffset reads how far back the base is; each octet that follows adds one.
func deltaOffset(r io.ByteReader) (int64, error) {
	var n int64
	for i := range 8 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if i > 0 {
			n++
		}
		n = n<<7 | int64(b&0x7f)
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errors.New("an offset beyond all measure")
}

// patch applies a delta: copies of the base, and octets of its own.
func patch(base, delta []byte) ([]byte, error) {
	bad := errors.New("a malformed delta")
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(base)) {
		return nil, bad
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 {
		return nil, bad
	}
	if size > maxFile {
		return nil, errTooLarge
	}
	delta = delta[n:]
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		if op&0x80 == 0 {
			if op == 0 || int(op) > len(delta) {
				return nil, bad
			}
			out, delta = append(out, delta[:op]...), delta[op:]
		} else {
			var offset, length int
			for bit := range 7 {
				if op>>bit&1 == 0 {
					continue
				}
				if len(delta) == 0 {
					return nil, bad
				}
				if bit < 4 {
					offset |= int(delta[0]) << (8 * bit)
				} else {
					length |= int(delta[0]) << (8 * (bit - 4))
				}
				delta = delta[1:]
			}
			if length == 0 {
				length = 0x10000
			}
			if offset+length > len(base) {
				return nil, bad
			}
			out = append(out, base[offset:offset+length]...)
		}
		if uint64(len(out)) > size {
			return nil, bad
		}
	}
	if uint64(len(out)) != size {
		return nil, bad
	}
	return out, nil
}

// EncodedObjectSize is of storer.EncodedObjectStorer.
func (p *pack) EncodedObjectSize(hash plumbing.Hash) (int64, error) {
	e := p.byHash[hash]
	if e == nil {
		return 0, plumbing.ErrObjectNotFound
	}
	return e.size, nil
}

// EncodedObject is of storer.EncodedObjectStorer.
func (p *pack) EncodedObject(_ plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	e := p.byHash[hash]
	if e == nil {
		return nil, plumbing.ErrObjectNotFound
	}
	content, err := p.content(e)
	if err != nil {
		return nil, err
	}
	return inMemory(e.kind, content)
}

func inMemory(kind plumbing.ObjectType, content []byte) (plumbing.EncodedObject, error) {
	o := new(plumbing.MemoryObject)
	o.SetType(kind)
	_, err := o.Write(content)
	return o, err
}

// encodePack packs objects whole, without deltas.
func encodePack(objects []Object) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("PACK")
	var head [8]byte
	binary.BigEndian.PutUint32(head[:4], 2)
	binary.BigEndian.PutUint32(head[4:], uint32(len(objects)))
	out.Write(head[:])
	for _, o := range objects {
		rest := len(o.Content) >> 4
		b := byte(o.Type)<<4 | byte(len(o.Content)&15)
		for ; rest > 0; rest >>= 7 {
			out.WriteByte(b | 0x80)
			b = byte(rest & 0x7f)
		}
		out.WriteByte(b)
		z, err := zlib.NewWriterLevel(&out, zlib.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(o.Content); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
	}
	sum := sha1.Sum(out.Bytes())
	out.Write(sum[:])
	return out.Bytes(), nil
}
