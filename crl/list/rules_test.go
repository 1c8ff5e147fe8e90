package list

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

func TestVerify(t *testing.T) {
	ca, other := newCA(t, cert.P256, "Issuer", nil), newCA(t, cert.P256, "Issuer", nil)
	key384 := newCA(t, cert.P384, "Issuer", nil)
	l := mustParse(t, ca.sign(t, 1, everyReason()...))
	under := func(change func(*x509.Certificate)) *x509.Certificate {
		c := *ca.cert
		change(&c)
		return &c
	}
	for name, c := range map[string]struct {
		code   string
		issuer *x509.Certificate
	}{
		"its issuer":          {"", ca.cert},
		"another key":         {BadKeyID, other.cert},
		"another key, its id": {BadSignature, under(func(c *x509.Certificate) { c.PublicKey = other.cert.PublicKey })},
		"another kind of key": {BadAlgorithm, under(func(c *x509.Certificate) { c.PublicKey = key384.cert.PublicKey })},
		"an unknown key":      {BadSigner, under(func(c *x509.Certificate) { c.PublicKey = nil })},
		"another name":        {BadIssuer, under(func(c *x509.Certificate) { c.RawSubject = newCA(t, cert.P256, "Other", nil).cert.RawSubject })},
		"no CA":               {BadSigner, under(func(c *x509.Certificate) { c.IsCA = false })},
		"no constraints":      {BadSigner, under(func(c *x509.Certificate) { c.BasicConstraintsValid = false })},
		"no cRLSign":          {BadSigner, under(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })},
		"no key id":           {BadSigner, under(func(c *x509.Certificate) { c.SubjectKeyId = nil })},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, l.Verify(c.issuer), c.code) })
	}
}

func TestCurrent(t *testing.T) {
	this, next := noon, noon.Add(time.Hour)
	for name, c := range map[string]struct {
		code            string
		this, next, now time.Time
	}{
		"now":                    {"", this, next, this},
		"last second":            {"", this, next, next.Add(-time.Second)},
		"over":                   {Expired, this, next, next},
		"long over":              {Expired, this, next, next.AddDate(1, 0, 0)},
		"clocks that differ":     {"", this, next, this.Add(-Skew)},
		"in the future":          {Future, this, next, this.Add(-Skew - time.Second)},
		"ends before it begins":  {Backwards, next, this, this},
		"ends when it begins":    {Backwards, this, this, this.Add(-time.Second)},
		"backwards, inside skew": {Backwards, this.Add(time.Minute), this.Add(time.Second), this},
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, (&List{ThisUpdate: c.this, NextUpdate: c.next}).Current(c.now), c.code)
		})
	}
}

func TestMayDrop(t *testing.T) {
	expired, second := noon, time.Second
	for name, c := range map[string]struct {
		lastHeld, now time.Time
		want          bool
	}{
		"held after, a week over":     {expired.Add(second), expired.Add(KeepAfterExpiry + second), true},
		"held after, a week to the s": {expired.Add(second), expired.Add(KeepAfterExpiry), false},
		"held at the expiry":          {expired, expired.Add(KeepAfterExpiry + second), false},
		"never held after":            {expired.Add(-second), expired.AddDate(1, 0, 0), false},
		"not expired":                 {expired.Add(-2 * second), expired.Add(-second), false},
	} {
		if got := MayDrop(expired, c.lastHeld, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFollows(t *testing.T) {
	ca := newCA(t, cert.P256, "Issuer", nil)
	at := func(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }
	entry := func(reason cert.Reason) Entry { return Entry{"0a", at(-5), reason} }
	moved := func(reason cert.Reason) Entry { return Entry{"0a", at(-4), reason} }
	stays := Entry{"0b", at(-6), cert.Superseded}
	// The last list is of noon; the certificate expired when the case says, in relation to noon.
	const unknown = time.Duration(1)
	type lists struct {
		code       string
		was, is    *Entry
		expired    time.Duration // before noon
		thisUpdate time.Duration // of the next list, after noon
		released   bool
	}
	some := func(e Entry) *Entry { return &e }
	week := KeepAfterExpiry
	for name, c := range map[string]lists{
		"the same":                        {was: some(entry(1)), is: some(entry(1))},
		"a new entry":                     {is: some(entry(1))},
		"left":                            {code: Dropped, was: some(entry(1)), expired: unknown},
		"left before it expired":          {code: Dropped, was: some(entry(1)), expired: -time.Hour},
		"left, expired for two days":      {code: Dropped, was: some(entry(1)), expired: time.Hour, thisUpdate: 2 * 24 * time.Hour},
		"left, expired for a week":        {code: Dropped, was: some(entry(1)), expired: time.Hour, thisUpdate: week - time.Hour},
		"left, expired for over a week":   {was: some(entry(1)), expired: time.Hour, thisUpdate: week - time.Hour + time.Second},
		"left, last list before expiry":   {code: Dropped, was: some(entry(1)), expired: -time.Hour, thisUpdate: 100 * week},
		"left, last list at the expiry":   {code: Dropped, was: some(entry(1)), expired: 0, thisUpdate: 100 * week},
		"left, long expired, not known":   {code: Dropped, was: some(entry(1)), expired: unknown, thisUpdate: 100 * week},
		"a hold left":                     {code: Dropped, was: some(entry(cert.CertificateHold)), expired: unknown},
		"a hold released":                 {was: some(entry(cert.CertificateHold)), expired: unknown, released: true},
		"a hold expired":                  {was: some(entry(cert.CertificateHold)), expired: time.Hour, thisUpdate: week},
		"no hold, released":               {code: Dropped, was: some(entry(1)), expired: unknown, released: true},
		"a hold stays, though released":   {was: some(entry(cert.CertificateHold)), is: some(entry(cert.CertificateHold)), released: true},
		"hold to superseded":              {was: some(entry(cert.CertificateHold)), is: some(entry(cert.Superseded))},
		"hold to unspecified":             {was: some(entry(cert.CertificateHold)), is: some(entry(cert.Unspecified))},
		"hold to another, date moved":     {code: DateChanged, was: some(entry(cert.CertificateHold)), is: some(moved(cert.Superseded))},
		"released and revoked anew":       {was: some(entry(cert.CertificateHold)), is: some(moved(cert.Superseded)), released: true},
		"superseded to key compromise":    {was: some(entry(cert.Superseded)), is: some(entry(cert.KeyCompromise))},
		"unspecified to key compromise":   {was: some(entry(cert.Unspecified)), is: some(entry(cert.KeyCompromise))},
		"key compromise to superseded":    {code: ReasonChanged, was: some(entry(cert.KeyCompromise)), is: some(entry(cert.Superseded))},
		"superseded to hold":              {code: ReasonChanged, was: some(entry(cert.Superseded)), is: some(entry(cert.CertificateHold))},
		"superseded to hold, released":    {code: ReasonChanged, was: some(entry(cert.Superseded)), is: some(entry(cert.CertificateHold)), released: true},
		"date moved":                      {code: DateChanged, was: some(entry(1)), is: some(moved(1))},
		"date moved, to key compromise":   {code: DateChanged, was: some(entry(cert.Superseded)), is: some(moved(cert.KeyCompromise))},
		"date moved, expired and overdue": {code: DateChanged, was: some(entry(1)), is: some(moved(1)), expired: time.Hour, thisUpdate: 100 * week},
	} {
		t.Run(name, func(t *testing.T) {
			listOf := func(number int64, this time.Time, e *Entry) *List {
				entries := []Entry{stays}
				if e != nil {
					entries = append(entries, *e)
				}
				template := Template{ca.cert, big.NewInt(number), this, this.AddDate(0, 0, 7)}
				return mustParse(t, ca.signAt(t, template, entries...))
			}
			expiry := func(serial cert.Serial) (time.Time, bool) {
				if serial != "0a" {
					t.Errorf("asked for the expiry of %s", serial)
				}
				return noon.Add(-c.expired), c.expired != unknown
			}
			released := func(hold Entry) bool {
				if hold != *c.was || hold.Reason != cert.CertificateHold {
					t.Errorf("asked for a release of %v", hold)
				}
				return c.released
			}
			last, next := listOf(8, noon, c.was), listOf(9, noon.Add(c.thisUpdate), c.is)
			wantCode(t, Follows(next, last, expiry, released), c.code)
		})
	}
}

func TestFollowsInOrder(t *testing.T) {
	ca, other := newCA(t, cert.P256, "Issuer", nil), newCA(t, cert.P256, "Other", nil)
	sameName := newCA(t, cert.P256, "Issuer", nil)
	never := func(cert.Serial) (time.Time, bool) { return time.Time{}, false }
	none := func(Entry) bool { return false }
	earlier := ca.template(9)
	earlier.ThisUpdate = earlier.ThisUpdate.AddDate(-1, 0, 0)
	eight := mustParse(t, ca.sign(t, 8))
	for name, c := range map[string]struct {
		code string
		next []byte
	}{
		"higher":               {"", ca.sign(t, 9)},
		"much higher":          {"", ca.sign(t, 1<<62)},
		"higher, earlier time": {"", ca.signAt(t, earlier)},
		"the same number":      {NotNewer, ca.sign(t, 8)},
		"lower":                {NotNewer, ca.sign(t, 7)},
		"of another":           {BadIssuer, other.sign(t, 9)},
		"of another key":       {BadIssuer, sameName.sign(t, 9)},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, Follows(mustParse(t, c.next), eight, never, none), c.code) })
	}
}
