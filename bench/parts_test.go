package bench_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// yardstick is the parts of an issue, ready to be measured at any time: the machine is not equally fast
// all through a run.
type yardstick struct {
	parts   []part
	store   *store.Store
	rows    atomic.Int64
	builder *profile.Builder
	rootKey crypto.Signer
	root    *x509.Certificate
	caKey   crypto.Signer
	ca      *x509.Certificate
}

// part is one of them. An issue needs it so many times: the key room builds the certificate again, and
// an issue has three leaves.
type part struct {
	name  string
	needs int
	csr   bool // also when the caller brings a CSR
	run   func(n int)
}

// sums are the CPU times of the parts, each counted once, and as often as an issue needs them, with the
// key and PKCS#12 made here and with a caller's CSR.
type sums struct{ once, issue, csr time.Duration }

const grouped = 32 // callers whose rows share commits

func newYardstick(b *testing.B) *yardstick {
	y := &yardstick{}
	y.makeCA(b)
	y.openStore(b)
	key := got(cert.GenerateKey(rand.Reader, cert.P256))(b)
	request := y.request(key.Public())
	precertificate, tbs, err := y.builder.Precertificate(request)
	must(b, err)
	leaf := got(x509.ParseCertificate(got(profile.Seal(rand.Reader, y.ca, tbs, y.caKey))(b)))(b)
	registry := got(lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{
		lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community,
	}}))(b)
	delivery := got(ecdh.X25519().GenerateKey(rand.Reader))(b)
	to := hex.EncodeToString(delivery.PublicKey().Bytes())
	secrets := bytes.Repeat([]byte("s"), 300)
	password := got(cert.NewPassword(rand.Reader))(b)
	y.parts = []part{
		{"key, P-256", 1, false, func(n int) {
			for range n {
				got(cert.GenerateKey(rand.Reader, cert.P256))(b)
			}
		}},
		{"CSR: make", 1, false, func(n int) {
			for range n {
				got(profile.MakeCSR(rand.Reader, key, "alice"))(b)
			}
		}},
		{"CSR: check", 1, true, checks(b, key)},
		{"precertificate", 2, true, func(n int) {
			for range n {
				_, _, err := y.builder.Precertificate(request)
				must(b, err)
			}
		}},
		{"lint", 1, true, func(n int) {
			for range n {
				zlint.LintCertificateEx(got(zx509.ParseCertificate(precertificate))(b), registry)
			}
		}},
		{"seal: sign and verify", 1, true, func(n int) {
			for range n {
				got(profile.Seal(rand.Reader, y.ca, tbs, y.caKey))(b)
			}
		}},
		{"PKCS#12, Modern2023", 1, false, func(n int) {
			for range n {
				salts := mathrand.NewChaCha8([32]byte{1})
				got(pkcs12.Modern2023.WithRand(salts).Encode(key, leaf, []*x509.Certificate{y.ca, y.root}, password))(b)
			}
		}},
		{"secrets sealed, HPKE", 1, false, func(n int) {
			for range n {
				got(signer.Seal(to, signer.Binding{Caller: "provisioning", RequestID: "r", BodySHA256: "00"}, secrets))(b)
			}
		}},
		{"store: row and leaf", 3, true, func(n int) { y.reserve(b, n) }},
	}
	return y
}

func checks(b *testing.B, key crypto.Signer) func(n int) {
	csr := got(profile.MakeCSR(rand.Reader, key, "alice"))(b)
	return func(n int) {
		for range n {
			got(profile.CheckCSR(csr))(b)
		}
	}
}

func (y *yardstick) makeCA(b *testing.B) {
	now := time.Now()
	y.rootKey = got(cert.GenerateKey(rand.Reader, cert.P256))(b)
	y.caKey = got(cert.GenerateKey(rand.Reader, cert.P256))(b)
	der := got(profile.Root(rand.Reader, y.rootKey, profile.RootSpec{Org: "Example", Generation: 1}, now))(b)
	y.root = got(x509.ParseCertificate(der))(b)
	spec := profile.IssuerSpec{Org: "Example", Generation: 1, Purposes: []cert.Purpose{cert.User}, Domains: []string{"example.org"}}
	der = got(profile.IssuerCert(rand.Reader, y.root, y.rootKey, spec, y.caKey.Public(), now))(b)
	y.ca = got(x509.ParseCertificate(der))(b)
	y.builder = got(profile.NewBuilder(y.ca, rand.Reader))(b)
}

func (y *yardstick) request(public crypto.PublicKey) profile.Request {
	now := time.Now().UTC().Truncate(time.Second)
	return profile.Request{
		Serial: "0123456789abcdef0123456789abcdef", Purpose: cert.User, CN: "alice",
		SANs:   cert.SANs{Email: []string{"alice@example.org"}},
		Public: public, NotBefore: now, NotAfter: now.AddDate(0, 0, 365),
	}
}

func (y *yardstick) openStore(b *testing.B) {
	opened := []audit.Event{&audit.LogOpened{Origin: "example.org/bench", Room: "room-bench"}}
	who := audit.Actor{Kind: audit.ByCeremony}
	y.store = got(store.Create(context.Background(), filepath.Join(b.TempDir(), "store.db"), time.Now, who, opened))(b)
	b.Cleanup(func() { must(b, y.store.Close()) })
}

// reserve enters n intents, by callers whose changes share commits.
func (y *yardstick) reserve(b *testing.B, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	var callers sync.WaitGroup
	for range grouped {
		callers.Go(func() {
			for left.Add(-1) >= 0 {
				enter(b, y.store, certificate(y.rows.Add(1)))
			}
		})
	}
	callers.Wait()
}

// certificate is the n-th row, of the size that rows have.
func certificate(n int64) store.Certificate {
	now := time.Now().UTC().Truncate(time.Second)
	hash := cert.SHA256([]byte(fmt.Sprint(n)))
	return store.Certificate{
		Serial: cert.Serial("7f" + hash[:30]), Issuer: "users", Purpose: cert.User, CN: fmt.Sprintf("row-%d", n), Key: fmt.Sprintf("row-%d", n),
		SANs: cert.SANs{Email: []string{fmt.Sprintf("row-%d@example.org", n)}}, KeyType: cert.P256,
		Caller: "provisioning", RequestID: fmt.Sprintf("row-%d", n), BodySHA256: hash,
		NotBefore: now, NotAfter: now.AddDate(0, 0, 365), Deadline: now.Add(time.Minute), SPKISHA256: hash, TBSSHA256: hash,
		CSR: bytes.Repeat([]byte("c"), 230), Sealed: bytes.Repeat([]byte("s"), 380),
	}
}

func enter(b *testing.B, s *store.Store, c store.Certificate) {
	_, err := s.Update(context.Background(), audit.Actor{Kind: audit.ByCaller, Name: c.Caller, Key: c.SPKISHA256, Peer: "127.0.0.1:40000"},
		func(tx *store.Tx) (audit.Event, error) {
			return &audit.IssueIntent{
				RequestID: c.RequestID, BodySHA256: c.BodySHA256, Rule: c.Caller + "/1", Room: "room-bench", Issuer: c.Issuer,
				Serial: c.Serial, Purpose: c.Purpose, CN: c.CN, SANs: c.SANs, KeyType: c.KeyType, KeyMadeBy: "ca",
				NotBefore: c.NotBefore, NotAfter: c.NotAfter, Deadline: c.Deadline,
				SPKISHA256: c.SPKISHA256, TBSSHA256: c.TBSSHA256, SealedSHA256: c.TBSSHA256,
			}, tx.Reserve(c)
		})
	if err != nil {
		b.Error(err)
	}
}

// measure gives the CPU time of each part on one core, from n runs of it.
func (y *yardstick) measure(b *testing.B, n int) ([]time.Duration, sums) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var each []time.Duration
	var s sums
	for _, p := range y.parts {
		begin := ownCPU(b)
		p.run(n)
		d := (ownCPU(b) - begin) / time.Duration(n)
		each = append(each, d)
		s.once += d
		s.issue += d * time.Duration(p.needs)
		if p.csr {
			s.csr += d * time.Duration(p.needs)
		}
	}
	return each, s
}

// now measures the parts quickly, to be compared with what is measured right after.
func (y *yardstick) now(b *testing.B) sums {
	_, s := y.measure(b, 300)
	return s
}

func reportParts(b *testing.B, r *report, y *yardstick) {
	y.measure(b, 100) // what is lazy is done
	const n = 1000
	each, s := y.measure(b, n)
	rows := [][]string{{"", "CPU us", "an issue needs", "CPU us"}}
	for i, p := range y.parts {
		rows = append(rows, []string{p.name, micro(each[i]), fmt.Sprint(p.needs), micro(each[i] * time.Duration(p.needs))})
	}
	rows = append(rows, []string{"sum", micro(s.once), "", micro(s.issue)}, []string{"sum with a caller's CSR", "", "", micro(s.csr)})
	r.section("the parts of an issue on one core", []string{
		fmt.Sprintf("%d times each; rows entered by %d callers, who share commits. An issue needs the precertificate in", n, grouped),
		"both processes, since the key room believes nothing, and three leaves: intent, done, answering.",
	}, rows)
}

// ownCPU is what this process has used so far.
func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func got[T any](v T, err error) func(*testing.B) T {
	return func(b *testing.B) T {
		b.Helper()
		must(b, err)
		return v
	}
}
