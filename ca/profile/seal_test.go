package profile

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"pgregory.net/rapid"
)

// faulty counts what the key is asked and can flip a bit of the answer.
type faulty struct {
	crypto.Signer
	asked int
	flip  bool
}

func (f *faulty) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	f.asked++
	signature, err := f.Signer.Sign(rand, digest, opts)
	if f.flip && err == nil {
		signature[len(signature)-1] ^= 1
	}
	return signature, err
}

func TestSealRefuses(t *testing.T) {
	for _, kind := range caKinds() {
		a := issuerFor(t, kind, cert.User)
		r := a.request(t, cert.User, keyFor(t, "subject", cert.P256).Public())
		der, tbs, err := a.builder.Precertificate(r)
		if err != nil {
			t.Fatal(err)
		}
		var whole asn1.RawValue
		if _, err := asn1.Unmarshal(der, &whole); err != nil {
			t.Fatal(err)
		}
		_, otherTBS, err := issuerFor(t, kind, cert.Caller).builder.Precertificate(func() Request {
			r := r
			r.Purpose, r.SANs = cert.Caller, cert.SANs{}
			return r
		}())
		if err != nil {
			t.Fatal(err)
		}
		otherKind := cert.P256
		if kind == cert.P256 {
			otherKind = cert.P384
		}
		_, otherKindTBS, err := issuerFor(t, otherKind, cert.User).builder.Precertificate(r)
		if err != nil {
			t.Fatal(err)
		}
		for name, bytes := range map[string][]byte{
			"nothing":                  nil,
			"no DER":                   []byte("tbs"),
			"a byte more":              append(bytes.Clone(tbs), 0),
			"a byte less":              tbs[:len(tbs)-1],
			"a whole certificate":      a.issuer.Raw,
			"a TBS and its signature":  whole.Bytes,
			"a CA below the issuer":    a.caTBS(t),
			"a leaf without CA:FALSE":  a.bareTBS(t),
			"another issuer's":         otherTBS,
			"another key's, same name": a.rekeyedTBS(t, r),
			"another algorithm's":      otherKindTBS,
			"the issuer's certificate": a.issuer.RawTBSCertificate,
		} {
			key := &faulty{Signer: a.key}
			if der, err := Seal(rand.Reader, a.issuer, bytes, key); err == nil || der != nil || key.asked != 0 {
				t.Errorf("%s, %s: %v, key asked %d times", kind, name, err, key.asked)
			}
		}
		key := &faulty{Signer: keyFor(t, "root", kind)}
		if _, err := Seal(rand.Reader, a.issuer, tbs, key); err == nil || key.asked != 0 {
			t.Errorf("%s: a key that is not the issuer's: %v, asked %d times", kind, err, key.asked)
		}
		key = &faulty{Signer: a.key, flip: true}
		if der, err := Seal(rand.Reader, a.issuer, tbs, key); err == nil || der != nil || key.asked != 1 {
			t.Errorf("%s: a faulty signature went out: %v", kind, err)
		}
	}
}

// rekeyedTBS is the TBS of a CA that shares the issuer's name, but not its key.
func (a *authority) rekeyedTBS(t *testing.T, r Request) []byte {
	t.Helper()
	other := *a.issuer
	other.SubjectKeyId = bytes.Repeat([]byte{7}, 20)
	b, err := NewBuilder(&other, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, tbs, err := b.Precertificate(r)
	if err != nil {
		t.Fatal(err)
	}
	return tbs
}

func (a *authority) caTBS(t *testing.T) []byte {
	return a.raw(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true})
}

func (a *authority) bareTBS(t *testing.T) []byte { return a.raw(t, &x509.Certificate{}) }

func (a *authority) raw(t *testing.T, template *x509.Certificate) []byte {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(7), now, now.Add(time.Hour)
	template.Subject = pkix.Name{CommonName: "alice"}
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, keyFor(t, "subject", cert.P256).Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der).RawTBSCertificate
}

// The TBS is an agreement between two processes and the log: these bytes were written by another
// process, and must come out of this one.
func TestGoldenTBS(t *testing.T) {
	subject := parse(t, readPEM(t, "issuer-caller.pem")).PublicKey
	for _, p := range cert.Purposes() {
		issuer := parse(t, readPEM(t, "issuer-"+string(p)+".pem"))
		var got []byte
		for range 2 { // two throwaway keys
			b, err := NewBuilder(issuer, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, tbs, err := b.Precertificate((&authority{issuer: issuer}).goldenRequest(t, p, subject))
				if err != nil {
					t.Fatal(err)
				}
				if got != nil && !bytes.Equal(tbs, got) {
					t.Fatalf("%s: the TBS changes from one time to the next", p)
				}
				got = tbs
			}
		}
		path := filepath.Join("testdata", string(p)+".tbs.hex")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text := hex.EncodeToString(got); text != strings.TrimSpace(string(want)) {
			t.Errorf("%s: the TBS is no longer the one in %s:\n%s", p, path, text)
		}
	}
}

func TestBuilderInParallel(t *testing.T) {
	a := issuerFor(t, cert.P256, cert.User)
	r := a.request(t, cert.User, keyFor(t, "subject", cert.P256).Public())
	_, want, err := a.builder.Precertificate(r)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, tbs, err := a.builder.Precertificate(r); err != nil || !bytes.Equal(tbs, want) {
				t.Errorf("another TBS in parallel: %v", err)
			}
		})
	}
	wg.Wait()
}

func (a *authority) goldenRequest(t *testing.T, p cert.Purpose, public crypto.PublicKey) Request {
	r := a.request(t, p, public)
	r.CRLURL = "http://crl.example.org/list.crl"
	return r
}

func readPEM(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM in %s", name)
	}
	return block.Bytes
}

// For any request that is accepted: what is sealed is what was built, by whichever Builder, it says
// what was asked in the order asked, and it lasts as many days as asked.
func TestSealedIsWhatWasBuilt(t *testing.T) {
	authorities, others := map[cert.Purpose]*authority{}, map[cert.Purpose]*Builder{}
	for _, p := range cert.Purposes() {
		authorities[p] = issuerFor(t, cert.P256, p)
		other, err := NewBuilder(authorities[p].issuer, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		others[p] = other
	}
	label := rapid.StringMatching(`[a-z]([a-z0-9-]{0,10}[a-z0-9])?`)
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom(cert.Purposes()).Draw(rt, "purpose")
		a := authorities[p]
		kind := rapid.SampledFrom(cert.SubjectKeyTypes()).Draw(rt, "kind")
		r := a.request(t, p, keyFor(t, "subject", kind).Public())
		serial := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(rt, "serial")
		serial[0] = serial[0]&0x7f | 1
		r.Serial = cert.SerialOf(new(big.Int).SetBytes(serial))
		r.CN = rapid.StringMatching(`[a-zA-Zà-ž]([a-zA-Zà-ž ,=+#"<>\\]{0,50}[a-z])?`).Draw(rt, "cn")
		switch p {
		case cert.User:
			r.SANs.Email = nil
			for _, local := range rapid.SliceOfNDistinct(label, 0, 4, rapid.ID).Draw(rt, "mail") {
				r.SANs.Email = append(r.SANs.Email, local+"@example.org")
			}
		case cert.Server:
			r.SANs.DNS = nil
			for _, host := range rapid.SliceOfNDistinct(label, 1, 6, rapid.ID).Draw(rt, "dns") {
				r.SANs.DNS = append(r.SANs.DNS, host+".example.org")
			}
			r.CN = rapid.SampledFrom(r.SANs.DNS).Draw(rt, "host")
		}
		days := rapid.IntRange(1, int(MaxValidity(p)/day)).Draw(rt, "days")
		var err error
		if r.NotBefore, r.NotAfter, err = Window(a.issuer, p, days, now); err != nil {
			rt.Fatal(err)
		}
		_, tbs, err := a.builder.Precertificate(r)
		if err != nil {
			rt.Fatal(err)
		}
		_, again, err := others[p].Precertificate(r)
		if err != nil || !bytes.Equal(again, tbs) {
			rt.Fatalf("another Builder makes another TBS (%v)", err)
		}
		der, err := Seal(rand.Reader, a.issuer, tbs, a.key)
		if err != nil {
			rt.Fatal(err)
		}
		leaf := parse(t, der)
		if !bytes.Equal(leaf.RawTBSCertificate, tbs) {
			rt.Fatal("the sealed TBS is not the one that was built")
		}
		if leaf.NotAfter.Sub(leaf.NotBefore)+time.Second != time.Duration(days)*day {
			rt.Fatalf("valid from %s to %s, want %d days", leaf.NotBefore, leaf.NotAfter, days)
		}
		if leaf.Subject.String() != (pkix.Name{CommonName: r.CN}).String() || cert.SerialOf(leaf.SerialNumber) != r.Serial ||
			fmt.Sprint(leaf.DNSNames, leaf.EmailAddresses, leaf.IPAddresses) != fmt.Sprint(r.SANs.DNS, r.SANs.Email, r.SANs.IP) {
			rt.Fatalf("asked for %+v, got %s %s %v %v", r, leaf.SerialNumber, leaf.Subject, leaf.DNSNames, leaf.EmailAddresses)
		}
	})
}

func BenchmarkPrecertificate(b *testing.B) {
	for _, kind := range caKinds() {
		a := issuerFor(b, kind, cert.User)
		for _, subject := range []cert.KeyType{cert.P256, cert.RSA2048} {
			r := a.request(b, cert.User, keyFor(b, "subject", subject).Public())
			b.Run(string(kind)+"/"+string(subject), func(b *testing.B) {
				for b.Loop() {
					if _, _, err := a.builder.Precertificate(r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, kind := range caKinds() {
		a := issuerFor(b, kind, cert.User)
		_, tbs, err := a.builder.Precertificate(a.request(b, cert.User, keyFor(b, "subject", cert.P256).Public()))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(kind), func(b *testing.B) {
			for b.Loop() {
				if _, err := Seal(rand.Reader, a.issuer, tbs, a.key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
