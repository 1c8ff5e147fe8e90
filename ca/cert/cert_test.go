package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
)

// TestSerialBits draws many serial numbers and looks at every bit: a generator that fixes or favours
// one has cost other CAs millions of certificates.
func TestSerialBits(t *testing.T) {
	const draws = 100_000
	var ones [128]int
	seen := make(map[Serial]bool, draws)
	for range draws {
		s, err := NewSerial(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if seen[s] {
			t.Fatalf("serial %s twice", s)
		}
		seen[s] = true
		n := s.Int()
		if n.Sign() <= 0 || n.BitLen() > 127 {
			t.Fatalf("serial %s has %d bits", s, n.BitLen())
		}
		for i := range ones {
			ones[i] += int(n.Bit(i))
		}
	}
	if ones[127] != 0 {
		t.Errorf("the sign bit was set %d times", ones[127])
	}
	for i, n := range ones[:127] {
		if n < draws/2-1000 || n > draws/2+1000 { // six standard deviations
			t.Errorf("bit %d was set in %d of %d serial numbers", i, n, draws)
		}
	}
}

func TestSerialWithoutRandomness(t *testing.T) {
	broken := errors.New("no randomness")
	if _, err := NewSerial(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := NewPassword(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	// Zero is drawn again.
	s, err := NewSerial(bytes.NewReader(append(make([]byte, 16), bytes.Repeat([]byte{1}, 16)...)))
	if err != nil || s != Serial(strings.Repeat("01", 16)) {
		t.Errorf("got %q, %v", s, err)
	}
}

func TestParseSerial(t *testing.T) {
	for text, want := range map[string]Serial{
		"1": "01", "01": "01", "0001": "01", "AB": "ab", "a:b": "ab", "00:AB:cd": "abcd",
		strings.Repeat("7f", 20): Serial(strings.Repeat("7f", 20)),
	} {
		got, err := ParseSerial(text)
		if err != nil || got != want {
			t.Errorf("ParseSerial(%q) = %q, %v; want %q", text, got, err, want)
		}
		if again, err := ParseSerial(string(got)); err != nil || again != got {
			t.Errorf("%q does not read back: %q, %v", got, again, err)
		}
	}
	for _, text := range []string{
		"", ":", "0", "000", "-1", "+1", "0x1", "g", "1 ", "１", "ab\n", strings.Repeat("0", 200),
		strings.Repeat("80", 20), "01" + strings.Repeat("00", 20),
	} {
		if got, err := ParseSerial(text); err == nil {
			t.Errorf("ParseSerial(%q) = %q", text, got)
		}
	}
	for _, s := range []Serial{"", "xy", "0"} {
		if n := s.Int(); n != nil {
			t.Errorf("%q has the number %s", s, n)
		}
	}
	if s := SerialOf(big.NewInt(0x1234)); s != "1234" {
		t.Errorf("got %q", s)
	}
}

func TestReasons(t *testing.T) {
	names := map[Reason]string{0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged",
		4: "superseded", 5: "cessationOfOperation", 6: "certificateHold", 9: "privilegeWithdrawn", 10: "aACompromise"}
	for r := Reason(-1); r <= 12; r++ {
		if r.Valid() != (names[r] != "") {
			t.Errorf("reason %d: valid %v", int(r), r.Valid())
		}
		text, err := json.Marshal(r)
		if !r.Valid() {
			if err == nil {
				t.Errorf("reason %d was written as %s", int(r), text)
			}
			continue
		}
		var back Reason
		if err != nil || json.Unmarshal(text, &back) != nil || back != r || r.String() != names[r] {
			t.Errorf("reason %d: %s, %v, read back as %v", int(r), text, err, back)
		}
	}
	for _, name := range []string{"", "KeyCompromise", "removeFromCRL", "7", "keycompromise"} {
		if r, err := ParseReason(name); err == nil {
			t.Errorf("ParseReason(%q) = %v", name, r)
		}
	}
	for _, c := range []struct {
		from, to Reason
		want     bool
	}{
		{Unspecified, KeyCompromise, true}, {Superseded, KeyCompromise, true}, {CertificateHold, Superseded, true},
		{KeyCompromise, Unspecified, false}, {Unspecified, Superseded, false}, {Superseded, CertificateHold, false},
		{Superseded, Superseded, true},
	} {
		if got := c.from.CanBecome(c.to); got != c.want {
			t.Errorf("%v becomes %v: %v", c.from, c.to, got)
		}
	}
}

// TestKeys has openssl say what kind each key is.
func TestKeys(t *testing.T) {
	for _, kind := range SubjectKeyTypes() {
		key, err := GenerateKey(rand.Reader, kind)
		if err != nil {
			t.Fatal(err)
		}
		got, err := KeyTypeOf(key.Public())
		if err != nil || got != kind {
			t.Errorf("a %s key is called %s, %v", kind, got, err)
		}
		if parsed, err := ParseKeyType(string(kind)); err != nil || parsed != kind {
			t.Errorf("%s reads back as %s, %v", kind, parsed, err)
		}
	}
	for _, name := range []string{"", "p-256", "P-521", "RSA-1024", "Ed25519"} {
		if kind, err := ParseKeyType(name); err == nil {
			t.Errorf("ParseKeyType(%q) = %s", name, kind)
		}
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), 2047)
	for name, public := range map[string]any{
		"P-521": p521.Public(), "exponent 3": &rsa.PublicKey{N: modulus, E: 3}, "exponent 1": &rsa.PublicKey{N: modulus, E: 1},
		"1024 bits": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}, "nothing": nil, "text": "key",
	} {
		if kind, err := KeyTypeOf(public); err == nil {
			t.Errorf("%s is called %s", name, kind)
		}
	}
	if _, err := GenerateKey(rand.Reader, "P-521"); err == nil {
		t.Error("a P-521 key was made")
	}
}

// TestPassword checks the strength that the choice of PKCS#12 iterations rests on.
func TestPassword(t *testing.T) {
	count := make(map[rune]int)
	for range 2000 {
		p, err := NewPassword(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		groups := strings.Split(p, "-")
		if len(groups) != 6 || len(p) != 35 {
			t.Fatalf("password %q is not six groups of five", p)
		}
		for _, r := range strings.Join(groups, "") {
			count[r]++
		}
	}
	if len(count) != 32 {
		t.Errorf("%d different letters, not 32: 30 of them must make 150 bits", len(count))
	}
	for r, n := range count {
		if n < 1500 || n > 2300 { // 1875 expected
			t.Errorf("%q was drawn %d times of 60000", r, n)
		}
		if strings.ContainsRune("ilouILOU", r) {
			t.Errorf("%q can be misread", r)
		}
	}
}

func TestFingerprint(t *testing.T) {
	cmd := exec.Command("openssl", "dgst", "-sha256", "-r")
	cmd.Stdin = strings.NewReader("certificate")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	want, _, _ := strings.Cut(string(out), " ")
	if got := FingerprintOf([]byte("certificate")); string(got) != want {
		t.Errorf("%s, openssl says %s", got, want)
	}
}

func TestPurposes(t *testing.T) {
	for _, p := range Purposes() {
		if got, err := ParsePurpose(string(p)); err != nil || got != p {
			t.Errorf("%s reads back as %s, %v", p, got, err)
		}
	}
	for _, text := range []string{"", "User", "ca", strings.Repeat("x", 1000)} {
		if _, err := ParsePurpose(text); err == nil || len(err.Error()) > 200 {
			t.Errorf("ParsePurpose(%.20q): %v", text, err)
		}
	}
	if n := (SANs{DNS: []string{"a"}, IP: []string{"b"}, Email: []string{"c", "d"}, URI: []string{"e"}}).Count(); n != 5 {
		t.Errorf("%d names", n)
	}
}
