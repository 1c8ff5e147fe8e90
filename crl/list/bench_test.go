package list

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// BenchmarkSign signs a list of encoded entries into a buffer that is used again. "x-floor" is its time
// by what cannot be left out, the SHA-256 of the same number of octets and one signature, measured
// between its own rounds; "x-floor-checked" counts the verification of the signature into the floor.
func BenchmarkSign(b *testing.B) {
	ca := newCA(b, cert.P256, "Issuer", nil)
	for _, n := range []int{1000, 10_000, 100_000} {
		var entries []byte
		for i := range n {
			entries = append(entries, encode(b, numbered(i))...)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			der, err := Sign(rand.Reader, ca.template(1), entries, ca.key)
			if err != nil {
				b.Fatal(err)
			}
			tbs := mustParse(b, der).tbs
			b.SetBytes(int64(len(der)))
			b.ReportAllocs()
			var buf bytes.Buffer
			var ours, floor, check time.Duration
			for b.Loop() {
				start := time.Now()
				buf.Reset()
				if err := SignTo(&buf, rand.Reader, ca.template(1), entries, ca.key); err != nil {
					b.Fatal(err)
				}
				signed := time.Now()
				sum := sha256.Sum256(tbs)
				sig, err := ca.key.Sign(rand.Reader, sum[:], crypto.SHA256)
				if err != nil {
					b.Fatal(err)
				}
				end := time.Now()
				if !verify(ca.cert.PublicKey, sum[:], sig) {
					b.Fatal("the floor's signature")
				}
				ours, floor, check = ours+signed.Sub(start), floor+end.Sub(signed), check+time.Since(end)
			}
			b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "sign-ns/op")
			b.ReportMetric(float64(ours)/float64(floor), "x-floor")
			b.ReportMetric(float64(ours)/float64(floor+check), "x-floor-checked")
		})
	}
}

// BenchmarkX509 is the same list by crypto/x509, which encodes every entry anew.
func BenchmarkX509(b *testing.B) {
	ca := newCA(b, cert.P256, "Issuer", nil)
	for _, n := range []int{1000, 10_000, 100_000} {
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: noon, NextUpdate: noon.AddDate(0, 0, 7)}
		for i := range n {
			e := numbered(i)
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: e.Serial.Int(), RevocationTime: e.RevokedAt, ReasonCode: int(e.Reason)})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParse reads a list; "x509" is crypto/x509, which refuses less.
func BenchmarkParse(b *testing.B) {
	ca := newCA(b, cert.P256, "Issuer", nil)
	var entries []byte
	for i := range 100_000 {
		entries = append(entries, encode(b, numbered(i))...)
	}
	der, err := Sign(rand.Reader, ca.template(1), entries, ca.key)
	if err != nil {
		b.Fatal(err)
	}
	for name, parse := range map[string]func() error{
		"ours": func() error { _, err := Parse(der); return err },
		"x509": func() error { _, err := x509.ParseRevocationList(der); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
