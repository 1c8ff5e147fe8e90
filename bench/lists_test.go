package bench_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/crl/list"
)

// reportLists compares signing a list with what cannot be avoided: the hash of its octets, one
// signature, and the check of that signature.
func reportLists(b *testing.B, r *report) {
	now := time.Now().UTC().Truncate(time.Second)
	key := got(cert.GenerateKey(rand.Reader, cert.P256))(b)
	der := got(profile.Root(rand.Reader, key, profile.RootSpec{Org: "Example", Generation: 1}, now))(b)
	issuer := got(x509.ParseCertificate(der))(b)
	head := list.Template{Issuer: issuer, Number: big.NewInt(7), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7)}
	rows := [][]string{{"entries", "octets", "CPU us", "floor us", "x floor"}}
	for _, entries := range []int{1_000, 100_000} {
		encoded := encodedEntries(b, entries, now)
		n := 4_000_000 / (entries + 20_000)
		var signing, floor time.Duration
		for range 10 { // in turns, so that a slow moment hits both
			floor += cpuOf(b, n/10, func() { signFloor(b, encoded, issuer, key) })
			signing += cpuOf(b, n/10, func() { got(list.Sign(rand.Reader, head, encoded, key))(b) })
		}
		rows = append(rows, []string{fmt.Sprint(entries), fmt.Sprint(len(encoded)), micro(signing / 10), micro(floor / 10), times(signing, floor)})
	}
	r.section("sign a list", []string{"beside the hash of its octets, one signature, its check, and a copy of the octets"}, rows)
}

func encodedEntries(b *testing.B, n int, at time.Time) []byte {
	var encoded []byte
	for i := range n {
		sum := sha256.Sum256(fmt.Append(nil, i))
		sum[0] &= 0x7f
		serial := cert.SerialOf(new(big.Int).SetBytes(sum[:16]))
		encoded = got(list.AppendEntry(encoded, list.Entry{Serial: serial, RevokedAt: at, Reason: cert.KeyCompromise}))(b)
	}
	return encoded
}

func signFloor(b *testing.B, octets []byte, issuer *x509.Certificate, key crypto.Signer) {
	sum := sha256.Sum256(octets)
	signature := got(key.Sign(rand.Reader, sum[:], crypto.SHA256))(b)
	if !ecdsa.VerifyASN1(issuer.PublicKey.(*ecdsa.PublicKey), sum[:], signature) {
		b.Fatal("a signature just made does not verify")
	}
	if len(bytes.Clone(octets)) == 0 {
		b.Fatal("no entries")
	}
}

// cpuOf is the CPU time of one run, from n of them.
func cpuOf(b *testing.B, n int, run func()) time.Duration {
	n = max(n, 1)
	begin := ownCPU(b)
	for range n {
		run()
	}
	return (ownCPU(b) - begin) / time.Duration(n)
}
