package gitrepo

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bigRepo has versions of files that git packs as deltas.
func bigRepo(t testing.TB) string {
	path := newBare(t)
	work := clone(t, path)
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 40_000)
	for i := range text {
		text[i] = byte(random.IntN(256))
	}
	for n := range 12 {
		copy(text[random.IntN(30_000):], fmt.Sprintf("version %d of it", n))
		commitAll(t, work, "site/pki/users.crl", string(text))
		commitAll(t, work, fmt.Sprintf("other/%d", n), string(text[n*100:]))
	}
	git(t, work, "tag", "-am", "annotated", "v1")
	git(t, work, "push", "-q", "--tags", "origin", "main")
	return path
}

// readPack finds in a pack exactly what git finds in it, with both kinds of deltas.
func TestReadPackAgainstGit(t *testing.T) {
	path := bigRepo(t)
	all := git(t, path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	for _, kind := range []string{"--delta-base-offset", "--no-delta-base-offset"} {
		cmd := gitCommand(path, "pack-objects", "--all", "--stdout", "-q", kind)
		raw, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		p, err := readPack(context.Background(), bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		deltas := 0
		for line := range strings.Lines(all) {
			var name, kind string
			var size int64
			if _, err := fmt.Sscan(line, &name, &kind, &size); err != nil {
				t.Fatal(err)
			}
			found := false
			for hash, e := range p.byHash {
				if hash.String() != name {
					continue
				}
				found = true
				content, err := load(p, e.kind, hash, maxFile) // it compares the hash
				if err != nil || int64(len(content)) != size || e.kind.String() != kind {
					t.Errorf("%s: %d octets, %v", line, len(content), err)
				}
				if e.delta > 0 {
					deltas++
				}
			}
			if !found {
				t.Errorf("%s is not found", line)
			}
		}
		if n := strings.Count(all, "\n") + 1; n != len(p.byHash) || deltas < 10 {
			t.Errorf("%d objects instead of %d, %d deltas", len(p.byHash), n, deltas)
		}
	}
}

// encodePack's packs are what git takes for packs.
func TestEncodePackAgainstGit(t *testing.T) {
	var objects []Object
	b := &builder{}
	for _, n := range []int{0, 1, 15, 16, 2047, 2048, 300_000} {
		b.add(3, bytes.Repeat([]byte{'x'}, n))
	}
	objects = append(objects, b.made...)
	raw, err := encodePack(objects)
	if err != nil {
		t.Fatal(err)
	}
	path := newBare(t)
	gitIn(t, path, string(raw), "index-pack", "--strict", "--stdin")
	for _, o := range objects {
		if got := git(t, path, "cat-file", "-s", o.Hash.String()); got != fmt.Sprint(len(o.Content)) {
			t.Errorf("%s has %s octets", o.Hash, got)
		}
	}
}

// entryOf makes an entry of a pack by hand.
func entryOf(kind, size int, between []byte, content []byte) []byte {
	var out bytes.Buffer
	b := byte(kind)<<4 | byte(size&15)
	for rest := size >> 4; rest > 0; rest >>= 7 {
		out.WriteByte(b | 0x80)
		b = byte(rest & 0x7f)
	}
	out.WriteByte(b)
	out.Write(between)
	z := zlib.NewWriter(&out)
	_, _ = z.Write(content) // a buffer does not fail
	_ = z.Close()
	return out.Bytes()
}

func packOf(entries ...[]byte) []byte {
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(entries)))
	for _, e := range entries {
		out = append(out, e...)
	}
	return append(out, make([]byte, 20)...)
}

func TestHostilePacks(t *testing.T) {
	blob := entryOf(3, 5, nil, []byte("hello"))
	delta := func(from, to uint64, ops ...byte) []byte {
		return append(binary.AppendUvarint(binary.AppendUvarint(nil, from), to), ops...)
	}
	onBlob := func(d []byte) []byte { return packOf(blob, entryOf(6, len(d), []byte{byte(len(blob))}, d)) }
	for name, raw := range map[string][]byte{
		"nothing":              {},
		"not a pack":           []byte(strings.Repeat("hello", 10)),
		"version 3":            append([]byte("PACK\x00\x00\x00\x03"), make([]byte, 24)...),
		"too many objects":     append([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"), make([]byte, 20)...),
		"fewer objects":        packOf(blob)[:40],
		"something behind":     append(packOf(blob), 'x'),
		"size too small":       packOf(entryOf(3, 4, nil, []byte("hello"))),
		"size too large":       packOf(entryOf(3, 6, nil, []byte("hello"))),
		"size beyond measure":  packOf(bytes.Repeat([]byte{0xff}, 30)),
		"type 0":               packOf(entryOf(0, 5, nil, []byte("hello"))),
		"type 5":               packOf(entryOf(5, 5, nil, []byte("hello"))),
		"no zlib":              packOf([]byte{0x35, 'h', 'e', 'l', 'l', 'o'}),
		"delta on itself":      packOf(entryOf(6, 3, []byte{0}, []byte{5, 1, 1})),
		"delta before":         packOf(entryOf(6, 3, []byte{0x70}, []byte{5, 1, 1})),
		"delta on nothing":     packOf(entryOf(7, 3, make([]byte, 20), []byte{5, 1, 1})),
		"empty delta":          onBlob(nil),
		"delta of other base":  onBlob(delta(6, 1, 1, 'x')),
		"delta too short":      onBlob(delta(5, 2, 1, 'x')),
		"delta too long":       onBlob(delta(5, 1, 2, 'x', 'y')),
		"delta op 0":           onBlob(delta(5, 1, 0)),
		"delta cut off":        onBlob(delta(5, 9, 9, 'x')),
		"delta beyond base":    onBlob(delta(5, 9, 0x91, 4, 9)),
		"delta to 2^60 octets": onBlob(delta(5, 1<<60, 0x90, 5))[:20],
	} {
		if _, err := readPack(context.Background(), bytes.NewReader(raw), int64(len(raw))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The same by hand, sound.
	good := onBlob(delta(5, 7, 0x90, 5, 2, '!', '!'))
	p, err := readPack(context.Background(), bytes.NewReader(good), int64(len(good)))
	if err != nil || len(p.byHash) != 2 {
		t.Error("a sound pack:", err)
	}
	// Damaged in any place, a pack is refused or gives other objects; it never panics.
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if p, err := readPack(context.Background(), bytes.NewReader(bad), int64(len(bad))); err == nil {
				for hash, e := range p.byHash {
					if _, err := load(p, e.kind, hash, maxFile); err != nil {
						t.Errorf("octet %d: %v", i, err)
					}
				}
			}
		}
	}
}

// A server that sends what inflates to very much, or never ends, or no protocol at all.
func TestHostileServer(t *testing.T) {
	pkt := func(lines ...string) string {
		var out bytes.Buffer
		for _, line := range lines {
			writePkt(&out, "%s", line)
		}
		return out.String() + flush
	}
	main := strings.Repeat("12", 20) + " refs/heads/main"
	for name, c := range map[string]struct{ greeting, want string }{
		"no protocol":    {"HELLO, this is a web page", "does not speak git's protocol"},
		"cut off":        {pkt(main + "\x00side-band-64k\n")[:20], "unexpected EOF"},
		"an error":       {pkt("ERR no\x1b[2J access today\n"), "no [2J access today"},
		"no side band":   {pkt(main + "\x00report-status\n"), "no side-band-64k"},
		"sha256":         {pkt(main + "\x00side-band-64k object-format=sha256\n"), "only sha1"},
		"not a hash":     {pkt("HEAD\x00side-band-64k\n", "../../x refs/heads/main\n"), "is at"},
		"another answer": {pkt(main+"\x00side-band-64k\n") + pkt("hello\n"), "the server answers"},
	} {
		h := &Hosted{ref: "refs/heads/main", folder: []string{"pki"}, limit: time.Second, way: fixed(c.greeting)}
		_, _, err := h.Fetch(context.Background())
		if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fixed is a server that always says the same.
type fixed string

func (f fixed) converse(context.Context, string) (*exchange, error) {
	all := strings.NewReader(string(f))
	ask := func([]byte) (io.Reader, error) { return all, nil }
	return &exchange{greeting: all, ask: ask, quit: func() {}, close: func() error { return nil }}, nil
}

// A large file of others beside the folder is fetched once, and not kept.
func TestOthersLargeFiles(t *testing.T) {
	s := overTLS(t, newBare(t), nil)
	work := clone(t, s.path)
	file := filepath.Join(work, "zeros")
	if out, err := exec.Command("truncate", "-s", "70M", file).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	commitAll(t, work, "theirs", "1")
	git(t, work, "push", "-q", "origin", "main")
	h := s.open(t)
	publish(t, h, Files{"number": []byte("1")})
	total := int64(0)
	for _, o := range h.known.from.(*kept).objects {
		total += o.Size()
	}
	if total > 10_000 {
		t.Errorf("%d octets are kept", total)
	}
	checkRepo(t, s.path)
}
