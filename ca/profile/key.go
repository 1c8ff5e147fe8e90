package profile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"math/big"
	"slices"

	"github.com/chancery-ca/chancery/ca/cert"
)

// CheckKey refuses a public key that no certificate may carry: another kind than
// cert.SubjectKeyTypes lists, and RSA moduli that are known to fall easily. Its errors are *Refusal
// with the codes key.type, key.rsa_size, key.rsa_exponent and key.weak.
//
// Not covered: the lists of Debian's weak keys of 2008, which would be megabytes of data.
func CheckKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if _, err := cert.KeyTypeOf(k); err != nil {
			return refuse("key.type", "%v", err)
		}
		if _, err := k.ECDH(); err != nil {
			return refuse("key.weak", "the point is not on the curve; make a new key")
		}
		return nil
	case *rsa.PublicKey:
		return checkRSA(k)
	}
	return refuse("key.type", "want an EC key on P-256 or P-384, or an RSA key of 2048 or 3072 bits")
}

func checkRSA(k *rsa.PublicKey) error {
	if k.E != 65537 {
		return refuse("key.rsa_exponent", "exponent %d; want 65537", k.E)
	}
	if _, err := cert.KeyTypeOf(k); err != nil {
		return refuse("key.rsa_size", "%v", err)
	}
	switch {
	case hasSmallFactor(k.N):
		return refuse("key.weak", "the RSA modulus has a small factor; make a new key")
	case isROCA(k.N):
		return refuse("key.weak", "the RSA modulus has the form that CVE-2017-15361 breaks; make a new key with other software")
	case hasClosePrimes(k.N):
		return refuse("key.weak", "the primes of the RSA modulus are too close to each other; make a new key with other software")
	}
	return nil
}

// hasSmallFactor tries 2 and every odd number below 1024, which includes the primes up to 751 that
// NIST SP 800-89 section 5.3.3 asks for.
func hasSmallFactor(n *big.Int) bool {
	if n.Bit(0) == 0 {
		return true
	}
	var d, rest big.Int
	for f := int64(3); f < 1024; f += 2 {
		if rest.Mod(n, d.SetInt64(f)).Sign() == 0 {
			return true
		}
	}
	return false
}

// rocaPrimes are the odd primes that divide every primorial of the affected library.
var rocaPrimes = [...]uint64{
	3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
	103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
}

// isROCA recognises moduli of CVE-2017-15361: each prime was k*M + (65537^a mod M) for a primorial M,
// so the modulus is a power of 65537 modulo every prime that divides M. An honest one passes for it
// about once in two hundred million times.
func isROCA(n *big.Int) bool {
	var d, rest big.Int
	for _, p := range rocaPrimes {
		want := rest.Mod(n, d.SetUint64(p)).Uint64()
		found := false
		for power, i := uint64(1), uint64(0); i < p-1 && !found; i++ {
			found = power == want
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

// fermatRounds find any two primes that are closer to each other than 2*sqrt(2*rounds) times the
// fourth root of the modulus. Primes drawn at random never are.
const fermatRounds = 100

// hasClosePrimes runs Fermat's factorisation: n = a*a - b*b for a starting at the root of n.
func hasClosePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	square := new(big.Int).Mul(a, a)
	if square.Cmp(n) == 0 {
		return true
	}
	one := big.NewInt(1)
	var b, step big.Int
	for range fermatRounds {
		// The next square: (a+1)^2 = a^2 + 2a + 1.
		square.Add(square, step.Add(step.Lsh(a, 1), one))
		a.Add(a, one)
		if isSquare(b.Sub(square, n)) {
			return true
		}
	}
	return false
}

// isSquare takes the root only of the numbers that are a square modulo 64, about one in five.
func isSquare(n *big.Int) bool {
	root := new(big.Int).And(n, big.NewInt(63))
	if !slices.Contains([]uint64{0, 1, 4, 9, 16, 17, 25, 33, 36, 41, 49, 57}, root.Uint64()) {
		return false
	}
	root.Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}
