package list

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

func TestBundleThroughOpenSSL(t *testing.T) {
	root := newCA(t, cert.RSA2048, "Root", nil)
	users := newCA(t, cert.P256, "Users", root)
	ours := EncodeBundle(users.sign(t, 7, everyReason()...), root.sign(t, 3))
	var theirs []byte
	for _, der := range [][]byte{users.sign(t, 7, everyReason()...), root.sign(t, 3)} {
		theirs = append(theirs, openssl(t, "crl", "-inform", "DER", "-outform", "PEM", "-in", file(t, "list.crl", der))...)
	}
	for name, bundle := range map[string][]byte{"ours": ours, "theirs": theirs} {
		if err := CheckBundle(bundle, []*x509.Certificate{users.cert, root.cert}, noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	lists, err := ParseBundle(ours)
	if err != nil || len(lists) != 2 {
		t.Fatal(len(lists), err)
	}
	for i, ca := range []*authority{users, root} {
		out := openssl(t, "crl", "-noout", "-crlnumber", "-verify", "-CAfile", file(t, "ca.pem", ca.pem()), "-in", file(t, "one.pem", EncodePEM(lists[i].Raw)))
		if !strings.Contains(out, "verify OK") || !strings.Contains(out, fmt.Sprintf("crlNumber=0x%02X", lists[i].Number.Int64())) {
			t.Errorf("openssl:\n%s", out)
		}
	}
}

func TestParseBundleRefuses(t *testing.T) {
	root := newCA(t, cert.P256, "Root", nil)
	users := newCA(t, cert.P256, "Users", root)
	one, two := EncodePEM(users.sign(t, 7)), EncodePEM(root.sign(t, 3))
	both := append(bytes.Clone(one), two...)
	replaced := func(from, to string) []byte { return []byte(strings.Replace(string(both), from, to, 1)) }
	for name, c := range map[string]struct {
		code string
		file []byte
	}{
		"good":                     {"", both},
		"empty":                    {NoLists, nil},
		"only a line end":          {Garbage, []byte("\n")},
		"DER":                      {Garbage, users.sign(t, 7)},
		"text before":              {Garbage, append([]byte("our lists\n"), both...)},
		"text after":               {Garbage, append(bytes.Clone(both), "\n"...)},
		"zeros after":              {Garbage, append(bytes.Clone(both), make([]byte, 512)...)},
		"text between":             {Garbage, append(append(bytes.Clone(one), "Root:\n"...), two...)},
		"a certificate":            {BadBlock, append(bytes.Clone(both), root.pem()...)},
		"the older label":          {BadBlock, replaced("BEGIN X509 CRL", "BEGIN CRL")},
		"another end":              {BadBlock, replaced("END X509 CRL", "END CRL")},
		"headers":                  {BadBlock, replaced("CRL-----\n", "CRL-----\nComment: ours\n\n")},
		"CR LF":                    {BadBlock, bytes.ReplaceAll(both, []byte("\n"), []byte("\r\n"))},
		"other columns":            {BadBlock, replaced("CRL-----\nM", "CRL-----\nM\n")},
		"not base64":               {BadBlock, replaced("CRL-----\nM", "CRL-----\n!")},
		"an empty block":           {Truncated, []byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n")},
		"two of one issuer":        {DuplicateIssuer, append(bytes.Clone(both), EncodePEM(users.sign(t, 8))...)},
		"the same twice":           {DuplicateIssuer, append(bytes.Clone(one), one...)},
		"a list cut inside":        {Truncated, EncodePEM(users.sign(t, 7)[:100])},
		"a list and one octet":     {Trailing, EncodePEM(append(users.sign(t, 7), 0))},
		"too large":                {TooLarge, make([]byte, maxBundle+1)},
		"a block that never ends":  {Truncated, append(bytes.Clone(both), "-----BEGIN X509 CRL-----\nMII"...)},
		"a block cut in its label": {Truncated, append(bytes.Clone(both), "-----BEGIN X5"...)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBundle(c.file)
			wantCode(t, err, c.code)
		})
	}
	// Cut anywhere, the file is refused by itself, but between its blocks only for the list that is missing.
	chain := []*x509.Certificate{users.cert, root.cert}
	for i := range both {
		want := Truncated
		switch i {
		case 0:
			want = NoLists
		case len(one):
			want = Missing
		}
		wantCode(t, CheckBundle(both[:i:i], chain, noon), want)
	}
}

func TestCheckBundle(t *testing.T) {
	root := newCA(t, cert.P384, "Root", nil)
	users, servers := newCA(t, cert.P256, "Users", root), newCA(t, cert.P256, "Servers", root)
	usersAgain := newCA(t, cert.P256, "Users", root)
	chain := []*x509.Certificate{users.cert, root.cert}
	u, s, r := users.sign(t, 7, numbered(1)), servers.sign(t, 5), root.sign(t, 3)
	forged := bytes.Clone(u)
	forged[len(forged)-1] ^= 1
	stale := users.template(6)
	stale.NextUpdate = noon
	for name, c := range map[string]struct {
		code  string
		file  []byte
		chain []*x509.Certificate
		now   time.Time
	}{
		"good":                {"", EncodeBundle(u, r), chain, noon},
		"root alone":          {"", EncodeBundle(r), chain[1:], noon},
		"two chains as one":   {"", EncodeBundle(u, s, r), []*x509.Certificate{users.cert, servers.cert, root.cert}, noon},
		"root first":          {BadOrder, EncodeBundle(r, u), chain, noon},
		"without the root's":  {Missing, EncodeBundle(u), chain, noon},
		"without the leaf's":  {Missing, EncodeBundle(r), chain, noon},
		"one too many":        {UnknownIssuer, EncodeBundle(u, s, r), chain, noon},
		"another's":           {UnknownIssuer, EncodeBundle(s, r), chain, noon},
		"of an earlier key":   {BadKeyID, EncodeBundle(usersAgain.sign(t, 7), r), chain, noon},
		"forged":              {BadSignature, EncodeBundle(forged, r), chain, noon},
		"expired":             {Expired, EncodeBundle(users.signAt(t, stale), r), chain, noon},
		"expired a week on":   {Expired, EncodeBundle(u, r), chain, noon.AddDate(0, 0, 7)},
		"before its time":     {Future, EncodeBundle(u, r), chain, noon.AddDate(0, 0, -1)},
		"no chain":            {UnknownIssuer, EncodeBundle(u, r), nil, noon},
		"not a bundle at all": {Garbage, []byte("<html>"), chain, noon},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, CheckBundle(c.file, c.chain, c.now), c.code) })
	}
}
