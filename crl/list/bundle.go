package list

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"time"
)

// maxBundle bounds a file of lists, in octets of text.
const maxBundle = 2 * MaxSize

// blockType is the label of a list in PEM (RFC 7468 section 6).
const blockType = "X509 CRL"

// EncodePEM writes one list as one PEM block.
func EncodePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
}

// EncodeBundle writes lists in DER as a file of PEM blocks, in the order given: leaf issuer first, root
// last.
func EncodeBundle(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, EncodePEM(der)...)
	}
	return out
}

// ParseBundle reads a file of lists. The file is, byte for byte, what EncodeBundle writes: consumers
// read past what they do not understand, each in its own way, so nothing else may be there. Two lists
// of one issuer are refused: which of them counts differs between consumers.
func ParseBundle(file []byte) ([]*List, error) {
	if len(file) > maxBundle {
		return nil, fault(TooLarge, "%d octets; at most %d are read", len(file), maxBundle)
	}
	if len(file) == 0 {
		return nil, fault(NoLists, "an empty file")
	}
	var lists []*List
	issuers := map[string]bool{}
	for len(file) > 0 {
		der, rest, err := cutBlock(file)
		if err != nil {
			return nil, err
		}
		l, err := Parse(der)
		if err != nil {
			return nil, err
		}
		if issuers[string(l.RawIssuer)] {
			return nil, fault(DuplicateIssuer, "two lists of %.200q", l.Issuer)
		}
		issuers[string(l.RawIssuer)] = true
		lists, file = append(lists, l), rest
	}
	return lists, nil
}

// cutBlock takes the first block off a file.
func cutBlock(file []byte) (der, rest []byte, err error) {
	const begin, end = "-----BEGIN " + blockType + "-----\n", "-----END " + blockType + "-----\n"
	if !bytes.HasPrefix(file, []byte(begin)) {
		switch {
		case len(file) < len(begin) && bytes.HasPrefix([]byte(begin), file):
			return nil, nil, fault(Truncated, "the last PEM block is cut")
		case bytes.HasPrefix(file, []byte("-----BEGIN ")):
			return nil, nil, fault(BadBlock, "a PEM block that is not %q", blockType)
		}
		return nil, nil, fault(Garbage, "%d octets that are no PEM block", len(file))
	}
	i := bytes.Index(file, []byte(end))
	if i < 0 {
		return nil, nil, fault(Truncated, "the last PEM block is cut")
	}
	text, rest := file[:i+len(end)], file[i+len(end):]
	block, _ := pem.Decode(text)
	if block == nil || !bytes.Equal(EncodePEM(block.Bytes), text) {
		return nil, nil, fault(BadBlock, "a PEM block in another form than 64 columns without headers")
	}
	return block.Bytes, rest, nil
}

// CheckBundle judges a file of lists against the CA certificates of a chain, leaf issuer first: exactly
// one list for each of them and in their order, each verified and current at the time now, and none of
// anyone else. Several chains under one root are checked as one: their issuers, then what they share.
func CheckBundle(file []byte, chain []*x509.Certificate, now time.Time) error {
	_, err := ReadBundle(file, chain, now)
	return err
}

// ReadBundle gives the lists of a file that CheckBundle lets pass, in their order, which is the chain's.
func ReadBundle(file []byte, chain []*x509.Certificate, now time.Time) ([]*List, error) {
	lists, err := ParseBundle(file)
	if err != nil {
		return nil, err
	}
	if err := judge(lists, chain, now); err != nil {
		return nil, err
	}
	return lists, nil
}

func judge(lists []*List, chain []*x509.Certificate, now time.Time) error {
	place := map[string]int{}
	for i, ca := range chain {
		place[string(ca.RawSubject)] = i
	}
	held := make([]bool, len(chain))
	ordered := true
	for i, l := range lists {
		at, known := place[string(l.RawIssuer)]
		if !known {
			return fault(UnknownIssuer, "%.200q is no CA of the chain", l.Issuer)
		}
		held[at], ordered = true, ordered && at == i
		if err := l.Verify(chain[at]); err != nil {
			return err
		}
		if err := l.Current(now); err != nil {
			return err
		}
	}
	for i, ca := range chain {
		if !held[i] {
			return fault(Missing, "no list of %.200q: consumers that check the whole chain refuse everyone", ca.Subject.String())
		}
	}
	if !ordered {
		return fault(BadOrder, "the lists are not in the order of the chain, leaf issuer first")
	}
	return nil
}
