package list

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Lists that crypto/x509 signs without a word.
func TestParseRefusesWhatX509Signs(t *testing.T) {
	ca := newCA(t, cert.P256, "Issuer", nil)
	entry := func(serial int64, reason int, extra ...pkix.Extension) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: noon, ReasonCode: reason, ExtraExtensions: extra}
	}
	extra := func(critical bool, value []byte, arc ...int) pkix.Extension {
		return pkix.Extension{Id: append(asn1.ObjectIdentifier{2, 5, 29}, arc...), Critical: critical, Value: value}
	}
	one := element(tagInteger, []byte{1})
	type lists struct {
		code    string
		entries []x509.RevocationListEntry
		extra   []pkix.Extension
		number  *big.Int
	}
	for name, c := range map[string]lists{
		"good":                {entries: []x509.RevocationListEntry{entry(1, 1), entry(2, 0)}},
		"unknown, tolerated":  {extra: []pkix.Extension{extra(false, one, 99)}, entries: []x509.RevocationListEntry{entry(1, 1, extra(false, one, 24))}},
		"serial twice":        {code: DuplicateEntry, entries: []x509.RevocationListEntry{entry(1, 1), entry(2, 1), entry(1, 6)}},
		"serial 0":            {code: BadSerial, entries: []x509.RevocationListEntry{entry(0, 1)}},
		"negative serial":     {code: BadSerial, entries: []x509.RevocationListEntry{entry(-5, 1)}},
		"21 octets":           {code: BadSerial, entries: []x509.RevocationListEntry{{SerialNumber: new(big.Int).Lsh(big.NewInt(1), 160), RevocationTime: noon}}},
		"reason 7":            {code: BadReason, entries: []x509.RevocationListEntry{entry(1, 7)}},
		"removeFromCRL":       {code: BadReason, entries: []x509.RevocationListEntry{entry(1, 8)}},
		"reason 11":           {code: BadReason, entries: []x509.RevocationListEntry{entry(1, 11)}},
		"reason 99":           {code: BadReason, entries: []x509.RevocationListEntry{entry(1, 99)}},
		"reason 265":          {code: BadReason, entries: []x509.RevocationListEntry{entry(1, 265)}},
		"certificate issuer":  {code: Indirect, entries: []x509.RevocationListEntry{entry(1, 0, extra(true, one, 29))}},
		"critical in entry":   {code: Critical, entries: []x509.RevocationListEntry{entry(1, 0, extra(true, one, 99))}},
		"twice in entry":      {code: BadExtension, entries: []x509.RevocationListEntry{entry(1, 1, extra(false, one, 99), extra(false, one, 99))}},
		"delta":               {code: Delta, extra: []pkix.Extension{extra(true, one, 27)}},
		"delta, not critical": {code: Delta, extra: []pkix.Extension{extra(false, one, 27)}},
		"shard":               {code: Scoped, extra: []pkix.Extension{extra(true, element(tagSequence), 28)}},
		"shard, not critical": {code: Scoped, extra: []pkix.Extension{extra(false, element(tagSequence), 28)}},
		"critical":            {code: Critical, extra: []pkix.Extension{extra(true, one, 99)}},
		"number twice":        {code: BadExtension, extra: []pkix.Extension{extra(false, one, 20)}},
		"number 0":            {code: BadNumber, number: new(big.Int)},
	} {
		t.Run(name, func(t *testing.T) {
			template := &x509.RevocationList{
				Number: c.number, ThisUpdate: noon, NextUpdate: noon.Add(time.Hour),
				RevokedCertificateEntries: c.entries, ExtraExtensions: c.extra,
			}
			if c.number == nil {
				template.Number = big.NewInt(1)
			}
			der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
			if err != nil {
				t.Fatalf("crypto/x509 does not sign it: %v", err)
			}
			_, err = Parse(der)
			wantCode(t, err, c.code)
		})
	}
}

// parts are the elements of a list, to be replaced one by one.
type parts struct{ version, inner, issuer, this, next, entries, extensions, outer, signature []byte }

func goodParts() parts {
	algorithm := []byte(ecdsaSHA256)
	return parts{
		version: element(tagInteger, []byte{1}), inner: algorithm,
		issuer: nameOf(element(0x0c, []byte("Issuer"))),
		this:   utc("261120110000Z"), next: utc("261127110000Z"),
		entries:    element(tagSequence, element(tagSequence, element(tagInteger, []byte{5}), utc("261120100000Z"))),
		extensions: crlExtensions(goodKeyID(), extension(oidNumber, element(tagInteger, []byte{9}))),
		outer:      algorithm, signature: element(tagBitString, []byte{0, 1, 2, 3}),
	}
}

// nameOf is a name of one common name.
func nameOf(value []byte) []byte {
	return element(tagSequence, element(0x31, element(tagSequence, element(tagOID, []byte("\x55\x04\x03")), value)))
}

func utc(s string) []byte { return element(tagUTCTime, []byte(s)) }

func crlExtensions(each ...[]byte) []byte {
	return element(tagExtensions, element(tagSequence, each...))
}

func goodKeyID() []byte {
	return extension(oidKeyID, element(tagSequence, element(tagKeyID, []byte("key"))))
}

func (p parts) der() []byte {
	tbs := element(tagSequence, p.version, p.inner, p.issuer, p.this, p.next, p.entries, p.extensions)
	return element(tagSequence, tbs, p.outer, p.signature)
}

// hostile is a list of which one part is replaced, and the code of its refusal.
type hostile struct {
	code   string
	change func(*parts)
}

func checkParts(t *testing.T, cases map[string]hostile) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := goodParts()
			c.change(&p)
			_, err := Parse(p.der())
			wantCode(t, err, c.code)
		})
	}
}

// Lists that no library writes.
func TestParseRefusesHostileParts(t *testing.T) {
	five := element(tagInteger, []byte{5})
	checkParts(t, map[string]hostile{
		"nothing changed":      {"", func(*parts) {}},
		"version 1":            {BadVersion, func(p *parts) { p.version = nil }},
		"version 3":            {BadVersion, func(p *parts) { p.version = element(tagInteger, []byte{2}) }},
		"version padded":       {BadVersion, func(p *parts) { p.version = element(tagInteger, []byte{0, 1}) }},
		"two algorithms":       {BadAlgorithm, func(p *parts) { p.inner = []byte(ecdsaSHA384) }},
		"SHA-1":                {BadAlgorithm, func(p *parts) { p.inner[len(p.inner)-1] = 1; p.inner[len(p.inner)-2] = 1 }},
		"no inner algorithm":   {BadAlgorithm, func(p *parts) { p.inner = nil }},
		"no issuer":            {BadIssuer, func(p *parts) { p.issuer = element(tagSequence) }},
		"issuer no name":       {BadIssuer, func(p *parts) { p.issuer = element(tagSequence, five) }},
		"issuer of integers":   {BadIssuer, func(p *parts) { p.issuer = nameOf(five) }},
		"issuer of nothing":    {BadIssuer, func(p *parts) { p.issuer = element(tagSequence, element(0x31)) }},
		"issuer too long":      {BadIssuer, func(p *parts) { p.issuer = nameOf(element(0x0c, make([]byte, maxName))) }},
		"issuer a string":      {Malformed, func(p *parts) { p.issuer = element(0x0c, []byte("Issuer")) }},
		"no thisUpdate":        {BadTime, func(p *parts) { p.this, p.next = nil, nil }},
		"no nextUpdate":        {BadTime, func(p *parts) { p.next = nil }},
		"no seconds":           {BadTime, func(p *parts) { p.next = utc("2611271100Z") }},
		"an offset":            {BadTime, func(p *parts) { p.next = utc("261127110000+0100") }},
		"no zone":              {BadTime, func(p *parts) { p.next = utc("2611271100000") }},
		"fraction":             {BadTime, func(p *parts) { p.next = element(tagGeneralizedTime, []byte("20601127110000.5Z")) }},
		"2049 in generalized":  {BadTime, func(p *parts) { p.next = element(tagGeneralizedTime, []byte("20491127110000Z")) }},
		"2050 in generalized":  {"", func(p *parts) { p.next = element(tagGeneralizedTime, []byte("20501127110000Z")) }},
		"30 February":          {BadTime, func(p *parts) { p.next = utc("270230110000Z") }},
		"29 February 2028":     {"", func(p *parts) { p.next = utc("280229110000Z") }},
		"a letter in the year": {BadTime, func(p *parts) { p.next = utc("2A0330110000Z") }},
		"month 0":              {BadTime, func(p *parts) { p.next = utc("270030110000Z") }},
		"24 o'clock":           {BadTime, func(p *parts) { p.next = utc("270130240000Z") }},
		"second 60":            {BadTime, func(p *parts) { p.next = utc("270130110060Z") }},
		"a letter":             {BadTime, func(p *parts) { p.next = utc("27013O110000Z") }},
		"a sign":               {BadTime, func(p *parts) { p.next = utc("27013011-100Z") }},
		"time an integer":      {BadTime, func(p *parts) { p.next = five }},
		"no signature":         {Malformed, func(p *parts) { p.signature = nil }},
		"half an octet signed": {Malformed, func(p *parts) { p.signature = element(tagBitString, []byte{4, 0x10}) }},
		"after the signature":  {Malformed, func(p *parts) { p.signature = append(p.signature, five...) }},
	})
}

func TestParseRefusesHostileEntriesAndExtensions(t *testing.T) {
	number := extension(oidNumber, element(tagInteger, []byte{9}))
	oneEntry := func(contents ...[]byte) []byte { return element(tagSequence, element(tagSequence, contents...)) }
	five, one := element(tagInteger, []byte{5}), element(tagEnumerated, []byte{1})
	reason := func(extensions ...[]byte) []byte {
		return oneEntry(five, utc("261120100000Z"), element(tagSequence, extensions...))
	}
	critical := func(value byte) []byte {
		return element(tagSequence, element(tagOID, []byte("\x55\x1d\x63")), element(tagBoolean, []byte{value}), element(tagOctetString, five))
	}
	var many [][]byte
	for i := range maxExtensions {
		many = append(many, extension("\x55\x1d\x63"+string(rune(i)), nil))
	}
	checkParts(t, map[string]hostile{
		"no entries":         {"", func(p *parts) { p.entries = nil }},
		"empty entries":      {NoEntries, func(p *parts) { p.entries = element(tagSequence) }},
		"entry no sequence":  {Malformed, func(p *parts) { p.entries = element(tagSequence, five) }},
		"entry empty":        {BadSerial, func(p *parts) { p.entries = oneEntry() }},
		"serial padded":      {BadSerial, func(p *parts) { p.entries = oneEntry(element(tagInteger, []byte{0, 5}), p.this) }},
		"serial of no octet": {BadSerial, func(p *parts) { p.entries = oneEntry(element(tagInteger), p.this) }},
		"entry without date": {BadTime, func(p *parts) { p.entries = oneEntry(five) }},
		"reason 1":           {"", func(p *parts) { p.entries = reason(extension(oidReason, one)) }},
		"reason 0 written":   {BadReason, func(p *parts) { p.entries = reason(extension(oidReason, element(tagEnumerated, []byte{0}))) }},
		"reason of no octet": {BadReason, func(p *parts) { p.entries = reason(extension(oidReason, element(tagEnumerated))) }},
		"reason an integer":  {BadReason, func(p *parts) { p.entries = reason(extension(oidReason, five)) }},
		"reason and more":    {BadReason, func(p *parts) { p.entries = reason(extension(oidReason, append(bytes.Clone(one), 0))) }},
		"reason twice":       {BadExtension, func(p *parts) { p.entries = reason(extension(oidReason, one), extension(oidReason, one)) }},
		"critical reason": {BadExtension, func(p *parts) {
			p.entries = reason(element(tagSequence, element(tagOID, []byte(oidReason)), element(tagBoolean, []byte{0xff}), element(tagOctetString, one)))
		}},
		"entry extensions void": {Malformed, func(p *parts) { p.entries = oneEntry(five, p.this, element(tagSequence)) }},
		"entry and more":        {Malformed, func(p *parts) { p.entries = oneEntry(five, p.this, element(tagSequence, number), five) }},
		"entry and integer":     {Malformed, func(p *parts) { p.entries = oneEntry(five, p.this, five) }},
		"no extensions":         {BadNumber, func(p *parts) { p.extensions = nil }},
		"extensions void":       {Malformed, func(p *parts) { p.extensions = crlExtensions() }},
		"no number":             {BadNumber, func(p *parts) { p.extensions = crlExtensions(goodKeyID()) }},
		"no key id":             {BadKeyID, func(p *parts) { p.extensions = crlExtensions(number) }},
		"number negative": {BadNumber, func(p *parts) {
			p.extensions = crlExtensions(goodKeyID(), extension(oidNumber, element(tagInteger, []byte{0x80})))
		}},
		"number of 21": {BadNumber, func(p *parts) {
			p.extensions = crlExtensions(goodKeyID(), extension(oidNumber, element(tagInteger, bytes.Repeat([]byte{1}, 21))))
		}},
		"number and more": {BadNumber, func(p *parts) {
			p.extensions = crlExtensions(goodKeyID(), extension(oidNumber, append(bytes.Clone(five), 0)))
		}},
		"number a string": {BadNumber, func(p *parts) { p.extensions = crlExtensions(goodKeyID(), extension(oidNumber, []byte("9"))) }},
		"key id empty":    {BadKeyID, func(p *parts) { p.extensions = crlExtensions(extension(oidKeyID, element(tagSequence)), number) }},
		"key id of no octet": {BadKeyID, func(p *parts) {
			p.extensions = crlExtensions(extension(oidKeyID, element(tagSequence, element(tagKeyID))), number)
		}},
		"key id and issuer": {BadKeyID, func(p *parts) {
			p.extensions = crlExtensions(extension(oidKeyID, element(tagSequence, element(tagKeyID, five), element(0x82, five))), number)
		}},
		"critical FALSE":        {Malformed, func(p *parts) { p.extensions = crlExtensions(goodKeyID(), number, critical(0)) }},
		"critical 1":            {Malformed, func(p *parts) { p.extensions = crlExtensions(goodKeyID(), number, critical(1)) }},
		"critical TRUE":         {Critical, func(p *parts) { p.extensions = crlExtensions(goodKeyID(), number, critical(0xff)) }},
		"padded identifier":     {Malformed, func(p *parts) { p.extensions = crlExtensions(goodKeyID(), number, extension("\x55\x80\x1d", nil)) }},
		"extension of no value": {Malformed, func(p *parts) { p.extensions = crlExtensions(element(tagSequence, element(tagOID, []byte(oidNumber)))) }},
		"too many extensions":   {Malformed, func(p *parts) { p.extensions = crlExtensions(append(many, goodKeyID(), number)...) }},
		"something after":       {Malformed, func(p *parts) { p.extensions = append(p.extensions, five...) }},
	})
}

func TestParseRefusesTheOutside(t *testing.T) {
	good := goodParts().der()
	padded := append([]byte{0x30, 0x82, 0, good[2]}, good[3:]...) // good has its length in 0x81 and one octet
	for name, c := range map[string]struct {
		code string
		in   []byte
	}{
		"one octet more":    {Trailing, append(bytes.Clone(good), 0)},
		"a second list":     {Trailing, append(bytes.Clone(good), good...)},
		"PEM":               {Malformed, EncodePEM(good)},
		"a set":             {Malformed, append([]byte{0x31}, good[1:]...)},
		"indefinite length": {Malformed, append([]byte{0x30, 0x80}, good...)},
		"five octets":       {Malformed, []byte{0x30, 0x85, 0, 0, 0, 0, 0}},
		"padded length":     {Malformed, padded},
		"four gigabytes":    {Truncated, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30}},
		"too large":         {TooLarge, make([]byte, MaxSize+1)},
		"nothing":           {Truncated, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.in)
			wantCode(t, err, c.code)
		})
	}
}

// Cut anywhere, a list says that it is cut, and with any bit turned it is refused by Parse or Verify.
func TestParseCutAndFlippedAnywhere(t *testing.T) {
	for _, kind := range []cert.KeyType{cert.P256, cert.RSA2048} {
		ca := newCA(t, kind, "Issuer", nil)
		der := ca.sign(t, 1, everyReason()...)
		for i := range der {
			_, err := Parse(der[:i:i])
			wantCode(t, err, Truncated)
		}
		for i := range 8 * len(der) {
			flipped := bytes.Clone(der)
			flipped[i/8] ^= 1 << (i % 8)
			if l, err := Parse(flipped); err == nil && l.Verify(ca.cert) == nil {
				t.Fatalf("%s: bit %d of octet %d can be turned", kind, i%8, i/8)
			}
		}
	}
}

func TestFind(t *testing.T) {
	ca := newCA(t, cert.P256, "Issuer", nil)
	l := mustParse(t, ca.sign(t, 1, everyReason()...))
	for _, want := range everyReason() {
		if got, ok := l.Find(want.Serial); !ok || got != want {
			t.Errorf("%s: %v %v", want.Serial, got, ok)
		}
	}
	if _, ok := l.Find("02"); ok {
		t.Error("found what is not there")
	}
	if _, ok := mustParse(t, ca.sign(t, 2)).Find("01"); ok {
		t.Error("found something in an empty list")
	}
}

// Whatever Parse accepts crypto/x509 accepts and reads the same way.
func FuzzParse(f *testing.F) {
	ca := newCA(f, cert.P256, "Issuer", nil)
	f.Add(goodParts().der())
	f.Add(ca.sign(f, 1))
	f.Add(ca.sign(f, 0x80ff, everyReason()...))
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := Parse(in)
		if err != nil {
			if l != nil || err.Error() == "" {
				t.Errorf("%v with %v", l, err)
			}
			return
		}
		theirs, err := x509.ParseRevocationList(in)
		if err != nil {
			t.Fatalf("accepted what crypto/x509 refuses: %v", err)
		}
		sameAsX509(t, l, theirs)
		var entries []byte
		for _, e := range l.Entries {
			if entries, err = AppendEntry(entries, e); err != nil {
				t.Errorf("read an entry that cannot be written: %v", err)
			}
		}
		if back, err := ParseBundle(EncodePEM(in)); err != nil || !bytes.Equal(back[0].Raw, in) {
			t.Errorf("through PEM: %v", err)
		}
	})
}
