package keyroom

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/scrypt"

	"github.com/chancery-ca/chancery/credential"
)

// Keys rest as PKCS#8 EncryptedPrivateKeyInfo under PBES2 (RFC 8018 section 6.2) with scrypt (RFC 7914)
// and AES-256-CBC, which openssl reads.
var (
	oidPBES2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidScrypt    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// scrypt's cost: 16 MiB and some 50 ms per key, the most that openssl reads by default. The passphrases
// that Init makes have 150 bits, so the cost is for those that people choose.
const (
	scryptN = 1 << 14
	scryptR = 8
	scryptP = 1
)

const keyBlock = "ENCRYPTED PRIVATE KEY"

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF    pkix.AlgorithmIdentifier
	Scheme pkix.AlgorithmIdentifier
}

type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// encryptKey writes key, of any kind that PKCS#8 knows, as PEM under passphrase.
func encryptKey(rand io.Reader, key any, passphrase []byte) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	defer clear(plain)
	random := make([]byte, 16+aes.BlockSize)
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, fmt.Errorf("drawing a salt: %w", err)
	}
	salt, iv := random[:16], random[16:]
	block, err := passphraseCipher(passphrase, scryptParams{Salt: salt, N: scryptN, R: scryptR, P: scryptP})
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	for range pad {
		plain = append(plain, byte(pad))
	}
	data := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, plain)
	der, err := marshalEncrypted(salt, iv, data)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

func marshalEncrypted(salt, iv, data []byte) ([]byte, error) {
	kdf, err := asn1.Marshal(scryptParams{salt, scryptN, scryptR, scryptP, 32})
	if err != nil {
		return nil, fmt.Errorf("encoding the key derivation: %w", err)
	}
	ivDER, err := asn1.Marshal(iv)
	if err != nil {
		return nil, fmt.Errorf("encoding the cipher: %w", err)
	}
	params, err := asn1.Marshal(pbes2Params{
		KDF:    pkix.AlgorithmIdentifier{Algorithm: oidScrypt, Parameters: asn1.RawValue{FullBytes: kdf}},
		Scheme: pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: ivDER}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the encryption: %w", err)
	}
	return asn1.Marshal(encryptedKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: asn1.RawValue{FullBytes: params}},
		Data:      data,
	})
}

// readSecret reads a file that nobody but its owner may read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if others := info.Mode().Perm() & 0o077; others != 0 && !(credential.Holds(path) && others == 0o040) {
		return nil, fmt.Errorf("%s has mode %04o, so others than its owner may use it: chmod 0400 it, and think about who has read it", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// readKey decrypts the key in the file at path. A wrong passphrase and a damaged file give the same
// error: CBC cannot tell them apart.
func readKey(path string, passphrase []byte) (crypto.PrivateKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	key, err := decryptKey(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("reading the key in %s: %w", path, err)
	}
	return key, nil
}

func decryptKey(text, passphrase []byte) (crypto.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyBlock || len(rest) != 0 {
		return nil, errors.New("want exactly one PEM block, " + keyBlock)
	}
	kdf, iv, data, err := parseEncrypted(block.Bytes)
	if err != nil {
		return nil, err
	}
	c, err := passphraseCipher(passphrase, kdf)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(data))
	defer clear(plain)
	cipher.NewCBCDecrypter(c, iv).CryptBlocks(plain, data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > aes.BlockSize {
		return nil, errors.New("wrong passphrase, or the file is damaged")
	}
	key, err := x509.ParsePKCS8PrivateKey(plain[:len(plain)-pad])
	if err != nil {
		return nil, errors.New("wrong passphrase, or the file is damaged")
	}
	return key, nil
}

func parseEncrypted(der []byte) (kdf scryptParams, iv, data []byte, err error) {
	var e encryptedKey
	var p pbes2Params
	if rest, err := asn1.Unmarshal(der, &e); err != nil || len(rest) != 0 || !e.Algorithm.Algorithm.Equal(oidPBES2) {
		return kdf, nil, nil, errors.New("not a PKCS#8 key under PBES2")
	}
	if _, err := asn1.Unmarshal(e.Algorithm.Parameters.FullBytes, &p); err != nil {
		return kdf, nil, nil, errors.New("the PBES2 parameters cannot be read")
	}
	if !p.KDF.Algorithm.Equal(oidScrypt) || !p.Scheme.Algorithm.Equal(oidAES256CBC) {
		return kdf, nil, nil, errors.New("want scrypt with AES-256-CBC")
	}
	if _, err := asn1.Unmarshal(p.KDF.Parameters.FullBytes, &kdf); err != nil || kdf.KeyLength != 0 && kdf.KeyLength != 32 {
		return kdf, nil, nil, errors.New("the scrypt parameters cannot be read")
	}
	// 128 octets times N times R is the memory that it takes (RFC 7914 section 2).
	if kdf.N > 1<<20 || kdf.R > 32 || kdf.P > 16 || kdf.N*kdf.R > 1<<20 {
		return kdf, nil, nil, errors.New("the scrypt parameters ask for too much")
	}
	if _, err := asn1.Unmarshal(p.Scheme.Parameters.FullBytes, &iv); err != nil || len(iv) != aes.BlockSize {
		return kdf, nil, nil, errors.New("the initialisation vector cannot be read")
	}
	if len(e.Data) == 0 || len(e.Data)%aes.BlockSize != 0 {
		return kdf, nil, nil, errors.New("the encrypted data is cut")
	}
	return kdf, iv, e.Data, nil
}

func passphraseCipher(passphrase []byte, p scryptParams) (cipher.Block, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	key, err := scrypt.Key(passphrase, p.Salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the passphrase: %w", err)
	}
	defer clear(key)
	return aes.NewCipher(key)
}
