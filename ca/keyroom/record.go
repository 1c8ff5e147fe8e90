package keyroom

import (
	"errors"
	"math"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// record is what one batch changed: the leaves that were read and what was done because of them.
type record struct {
	sequence int64
	time     time.Time // the room's clock, microseconds
	first    int64     // index of leaves[0], or of the leaf that would follow
	leaves   [][]byte
	effects  []effect
	root     audit.Hash // of the tree after the leaves
}

// effectKind tells what was done.
type effectKind uint8

const (
	didSign    effectKind = 1 // a certificate: index, serial, issuer, notAfter, tbs, data (its DER)
	didVoid    effectKind = 2 // a serial that never will be signed: index, serial
	didList    effectKind = 3 // a list: index, issuer, number, thisUpdate (as when), dropped; data (its SHA-256)
	didOpen    effectKind = 4 // sealed secrets: index, serial
	didConfirm effectKind = 5 // an operator confirmed the clock
	didIgnore  effectKind = 6 // a release that its caller has not signed was ignored: index
)

// effect is one thing done. Which members mean something depends on kind.
type effect struct {
	kind    effectKind
	index   int64
	serial  cert.Serial
	issuer  cert.Issuer
	number  string
	when    time.Time // whole seconds
	tbs     string    // SHA-256, hex
	data    []byte
	dropped []cert.Serial
}

func (r record) encode() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint64(uint64(r.sequence))
	b.AddUint64(uint64(r.time.UnixMicro()))
	b.AddUint64(uint64(r.first))
	b.AddBytes(r.root[:])
	b.AddUint32(uint32(len(r.leaves)))
	for _, leaf := range r.leaves {
		addBytes(&b, leaf)
	}
	b.AddUint32(uint32(len(r.effects)))
	for _, e := range r.effects {
		b.AddUint8(uint8(e.kind))
		b.AddUint64(uint64(e.index))
		addBytes(&b, []byte(e.serial))
		addBytes(&b, []byte(e.issuer))
		addBytes(&b, []byte(e.number))
		b.AddUint64(uint64(max(e.when.Unix(), 0))) // the zero time means nothing here
		addBytes(&b, []byte(e.tbs))
		addBytes(&b, e.data)
		b.AddUint32(uint32(len(e.dropped)))
		for _, serial := range e.dropped {
			addBytes(&b, []byte(serial))
		}
	}
	return b.Bytes()
}

func addBytes(b *cryptobyte.Builder, data []byte) {
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(data) })
}

var errRecord = errors.New("it cannot be decoded")

func decodeRecord(body []byte) (record, error) {
	d := decoder{s: body}
	r := record{
		sequence: d.int64(),
		time:     time.UnixMicro(d.int64()).UTC(),
		first:    d.int64(),
	}
	copy(r.root[:], d.take(len(r.root)))
	for range d.count() {
		r.leaves = append(r.leaves, d.bytes())
	}
	for range d.count() {
		e := effect{
			kind:   effectKind(d.uint8()),
			index:  d.int64(),
			serial: cert.Serial(d.bytes()),
			issuer: cert.Issuer(d.bytes()),
			number: string(d.bytes()),
			when:   time.Unix(d.int64(), 0).UTC(),
			tbs:    string(d.bytes()),
			data:   d.bytes(),
		}
		for range d.count() {
			e.dropped = append(e.dropped, cert.Serial(d.bytes()))
		}
		r.effects = append(r.effects, e)
	}
	if d.failed || !d.s.Empty() {
		return record{}, errRecord
	}
	return r, nil
}

// decoder reads the parts of a record; after the first that is missing it gives zero values.
type decoder struct {
	s      cryptobyte.String
	failed bool
}

func (d *decoder) ok(read bool) {
	if !read {
		d.failed, d.s = true, nil
	}
}

func (d *decoder) uint8() (v uint8) {
	d.ok(d.s.ReadUint8(&v))
	return v
}

func (d *decoder) int64() int64 {
	var v uint64
	d.ok(d.s.ReadUint64(&v) && v <= math.MaxInt64)
	return int64(v)
}

func (d *decoder) count() int {
	var v uint32
	d.ok(d.s.ReadUint32(&v) && int(v) <= len(d.s)) // every element takes at least an octet
	if d.failed {
		return 0
	}
	return int(v)
}

func (d *decoder) take(n int) (v []byte) {
	d.ok(d.s.ReadBytes(&v, n))
	return v
}

func (d *decoder) bytes() []byte {
	var v cryptobyte.String
	d.ok(d.s.ReadUint24LengthPrefixed(&v))
	return v
}
