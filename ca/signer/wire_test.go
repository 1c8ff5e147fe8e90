package signer

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// TestFrames writes and reads frames of every size around the limit.
func TestFrames(t *testing.T) {
	const limit = 100
	for n := 90; n < 110; n++ {
		var buf bytes.Buffer
		text := strings.Repeat("x", n-2) // and two quotation marks
		if err := WriteFrame(&buf, text, limit); (err == nil) != (n <= limit) {
			t.Errorf("writing %d octets: %v", n, err)
		}
		if n > limit {
			if buf.Len() > 0 {
				t.Errorf("%d octets of a frame that is too long were written", buf.Len())
			}
			if err := WriteFrame(&buf, text, 2*limit); err != nil {
				t.Fatal(err)
			}
		}
		var got string
		if err := ReadFrame(bufio.NewReader(&buf), &got, limit); (err == nil) != (n <= limit) || err == nil && got != text {
			t.Errorf("reading %d octets: %v", n, err)
		}
	}
}

// TestBadFrames reads what is none. Only an end between two frames is io.EOF.
func TestBadFrames(t *testing.T) {
	for name, text := range map[string]string{
		"half a length": "\x00\x00", "no body": "\x00\x00\x00\x02", "half a body": "\x00\x00\x00\x08{\"", "empty": "\x00\x00\x00\x00",
		"not JSON": "\x00\x00\x00\x02{]", "two values": "\x00\x00\x00\x04{}{}", "an unknown member": "\x00\x00\x00\x07{\"x\":1}",
		"of another type": "\x00\x00\x00\x02[]",
	} {
		if err := ReadFrame(bufio.NewReader(strings.NewReader(text)), new(Call), 100); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ReadFrame(bufio.NewReader(strings.NewReader("")), new(Call), 100); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

// TestClaims reads a frame that claims to be large and is not: memory goes by what arrives.
func TestClaims(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if err := ReadFrame(bufio.NewReader(strings.NewReader("\x0f\xff\xff\xff{}")), new(Call), MaxReply); err == nil {
			t.Fatal("read")
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 10<<20 {
		t.Errorf("%d octets of memory for 100 frames of 2 octets", n)
	}
}

// TestSeal opens sealed secrets with the right key and binding, and with everything else.
func TestSeal(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := hex.EncodeToString(key.PublicKey().Bytes())
	b := Binding{Caller: "provisioning", RequestID: "r1", BodySHA256: "ab"}
	secrets := []byte("a key and a password")
	sealed, err := Seal(public, b, secrets)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Unseal(key, b, sealed); err != nil || !bytes.Equal(got, secrets) {
		t.Errorf("opened as %q, %v", got, err)
	}
	if bytes.Contains(sealed, secrets[:5]) {
		t.Error("the secrets stand in clear")
	}
	if again, err := Seal(public, b, secrets); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealing twice gives the same octets (%v)", err)
	}
	fails := func(what string, key *ecdh.PrivateKey, b Binding, sealed []byte) {
		t.Helper()
		if got, err := Unseal(key, b, sealed); err == nil {
			t.Errorf("%s: opened as %q", what, got)
		}
	}
	fails("another key", other, b, sealed)
	fails("another caller", key, Binding{"somebody", "r1", "ab"}, sealed)
	fails("another request", key, Binding{"provisioning", "r2", "ab"}, sealed)
	fails("another body", key, Binding{"provisioning", "r1", "cd"}, sealed)
	fails("texts put together in another way", key, Binding{"provisioningr1", "", "ab"}, sealed)
	if to, ok := SealedTo(sealed); !ok || to != KeyIDOf(key.PublicKey()) {
		t.Errorf("it names %x", to)
	}
	renamed, name := bytes.Clone(sealed), KeyIDOf(other.PublicKey())
	copy(renamed, name[:])
	fails("the name of another key", key, b, renamed)
	fails("the name of another key, under that", other, b, renamed)
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x10
		fails("damaged", key, b, bad)
		fails("cut", key, b, sealed[:i])
	}
	for _, bad := range []string{"", "ab", public + "00", strings.Repeat("zz", 32)} {
		if _, err := Seal(bad, b, secrets); err == nil {
			t.Errorf("sealed to the key %q", bad)
		}
	}
}
