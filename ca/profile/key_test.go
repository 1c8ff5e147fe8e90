package profile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

func TestGoodKeys(t *testing.T) {
	for _, kind := range cert.SubjectKeyTypes() {
		if err := CheckKey(keyFor(t, "subject", kind).Public()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestBadKeys(t *testing.T) {
	honest := keyFor(t, "subject", cert.RSA2048).Public().(*rsa.PublicKey)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := func(n *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: 65537} }
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		code string
	}{
		{"none", nil, "key.type"},
		{"Ed25519", edwards, "key.type"},
		{"P-521", p521.Public(), "key.type"},
		{"off the curve", &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, "key.weak"}, //nolint:staticcheck // no other way makes one
		{"exponent 1", &rsa.PublicKey{N: honest.N, E: 1}, "key.rsa_exponent"},
		{"exponent 3", &rsa.PublicKey{N: honest.N, E: 3}, "key.rsa_exponent"},
		{"1024 bits", modulus(new(big.Int).Rsh(honest.N, 1024)), "key.rsa_size"},
		{"2047 bits", modulus(new(big.Int).Rsh(honest.N, 1)), "key.rsa_size"},
		{"4096 bits", modulus(new(big.Int).Lsh(honest.N, 2048)), "key.rsa_size"},
		{"even", modulus(new(big.Int).Sub(honest.N, big.NewInt(1))), "key.weak"},
		{"a factor of 751", modulus(multiple(honest.N, 751)), "key.weak"},
		{"a square", modulus(closePrimes(t, 0)), "key.weak"},
		{"neighbouring primes", modulus(closePrimes(t, 1)), "key.weak"},
		{"primes 2^514 apart", modulus(closePrimes(t, 514)), "key.weak"},
		{"ROCA", modulus(roca(t)), "key.weak"},
	} {
		if err := CheckKey(c.key); code(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	if err := CheckKey(modulus(closePrimes(t, 700))); err != nil {
		t.Errorf("primes 2^700 apart, beyond the reach of the method: %v", err)
	}
}

// multiple is a number of the size of n that f divides, and 2 does not.
func multiple(n *big.Int, f int64) *big.Int {
	factor := big.NewInt(f)
	m := new(big.Int).Div(n, factor)
	return m.Mul(m.SetBit(m, 0, 1), factor)
}

// nextPrime is the first prime from n on.
func nextPrime(n *big.Int) *big.Int {
	p := new(big.Int).SetBit(n, 0, 1)
	for !p.ProbablyPrime(4) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// closePrimes is a modulus of 2048 bits whose primes are about 2^bits apart; the same prime twice for 0.
func closePrimes(t *testing.T, bits uint) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p.SetBit(p, 1022, 0) // room below 2^1024
	p = nextPrime(p.SetBit(p, 1021, 1))
	q := p
	if bits > 0 {
		q = nextPrime(new(big.Int).Add(p, new(big.Int).Lsh(big.NewInt(1), bits)))
	}
	n := new(big.Int).Mul(p, q)
	if n.BitLen() != 2048 {
		return closePrimes(t, bits)
	}
	return n
}

// roca makes a modulus as the library of CVE-2017-15361 did, from primes k*M + (65537^a mod M), with
// the primorial that it used for its shortest keys.
func roca(t *testing.T) *big.Int {
	t.Helper()
	m := big.NewInt(2)
	for i := int64(3); i <= 167; i += 2 {
		if big.NewInt(i).ProbablyPrime(10) {
			m.Mul(m, big.NewInt(i))
		}
	}
	for {
		n := big.NewInt(1)
		for range 2 {
			n.Mul(n, rocaPrime(t, m))
		}
		if n.BitLen() == 2048 {
			return n
		}
	}
}

func rocaPrime(t *testing.T, m *big.Int) *big.Int {
	t.Helper()
	for {
		a, err := rand.Int(rand.Reader, m)
		if err != nil {
			t.Fatal(err)
		}
		k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1025-m.BitLen())))
		if err != nil {
			t.Fatal(err)
		}
		p := k.Mul(k, m)
		if p.Add(p, a.Exp(big.NewInt(65537), a, m)); p.BitLen() == 1024 && p.ProbablyPrime(4) {
			return p
		}
	}
}

func BenchmarkCheckKey(b *testing.B) {
	for _, kind := range cert.SubjectKeyTypes() {
		public := keyFor(b, "subject", kind).Public()
		b.Run(string(kind), func(b *testing.B) {
			for b.Loop() {
				if err := CheckKey(public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
