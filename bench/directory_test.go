package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	cn "github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

const (
	rounds   = 4
	perRound = 250 // entries for each way to write to them
	writers  = 8   // requests under way, as many as the loop visits at once
	people   = "ou=people,dc=example,dc=org"
	hasIt    = "userCertificate;binary"
)

// ways are how a certificate comes into the directory.
var ways = [...]string{"a bare modify", "search, modify, search", "publication, from debt to paid"}

// reportDirectory compares publications to an LDAP server with go-ldap alone on the same server.
func reportDirectory(b *testing.B, r *report, y *yardstick) {
	d := newDirectory(b, y)
	var wall, cpu [len(ways)]time.Duration
	writes := []func(b *testing.B, people []person){d.modify, d.threeSteps, d.publish}
	for round := range rounds { // in turns, so that a slow moment hits all
		for turn := range writes {
			way := (turn + round) % len(writes)
			people := d.people(b, round*len(ways)+way)
			if way == len(ways)-1 {
				d.each(b, len(people), func(n int) error { return d.owe(people[n]) })
			}
			before := ownCPU(b)
			begin := time.Now()
			writes[way](b, people)
			wall[way] += time.Since(begin)
			cpu[way] += ownCPU(b) - before
		}
	}
	const n = rounds * perRound
	rows := [][]string{{"", "per s", "ms each", "CPU us", "x bare", "x same steps"}}
	for way, title := range ways {
		rows = append(rows, []string{
			title, fmt.Sprintf("%.0f", n/wall[way].Seconds()), milli(wall[way] / n), micro(cpu[way] / n), times(wall[way], wall[0]), times(wall[way], wall[1]),
		})
	}
	r.section("publish to LDAP", []string{
		fmt.Sprintf("%d entries each, over one connection with %d requests under way, in OpenLDAP on the same disk. A publication", n, writers),
		"looks before it writes and reads back what it wrote, by design: that is the middle row. It also reads the books",
		"twice and enters on the log that it was done, which is a commit of the store. CPU is of this process.",
	}, rows)
	r.target("publication to LDAP: time over the same three steps by go-ldap alone", ratio(wall[2], wall[1]), 1.5, "x")
}

// directory is an OpenLDAP server, a connection to it, and the loop that publishes there.
type directory struct {
	*yardstick
	conn *ldap.Conn
	loop *ldapsync.Loop
	key  *ecdsa.PrivateKey
	last atomic.Int64
}

type person struct {
	dn, entry string // entry is the entryUUID
	debt      string
	der       []byte
}

func newDirectory(b *testing.B, y *yardstick) *directory {
	dir := got(os.MkdirTemp("", "slapd"))(b) // a socket's path has to be short
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
directory %s
suffix dc=example,dc=org
rootdn gidNumber=%d+uidNumber=%d,cn=peercred,cn=external,cn=auth
index objectClass,cn,entryUUID eq
maxsize 268435456
`, dir, os.Getgid(), os.Getuid())
	must(b, os.WriteFile(filepath.Join(dir, "slapd.conf"), []byte(config), 0o600))
	var ldif strings.Builder
	ldif.WriteString("dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n\ndn: " + people + "\nobjectClass: organizationalUnit\nou: people\n\n")
	for n := range rounds * perRound * len(ways) {
		fmt.Fprintf(&ldif, "dn: cn=person %[1]d,%[2]s\nobjectClass: inetOrgPerson\ncn: person %[1]d\nsn: x\n\n", n, people)
	}
	must(b, os.WriteFile(filepath.Join(dir, "people.ldif"), []byte(ldif.String()), 0o600))
	quietly(b, exec.Command("/usr/sbin/slapadd", "-q", "-f", filepath.Join(dir, "slapd.conf"), "-l", filepath.Join(dir, "people.ldif")))
	address := "ldapi://" + url.PathEscape(filepath.Join(dir, "socket"))
	server := exec.Command("/usr/sbin/slapd", "-d0", "-f", filepath.Join(dir, "slapd.conf"), "-h", address)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(b, server.Start())
	b.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })

	d := &directory{yardstick: y, key: got(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(b)}
	for begin := time.Now(); d.conn == nil; time.Sleep(10 * time.Millisecond) {
		conn, err := ldap.DialURL("ldapi://" + filepath.Join(dir, "socket"))
		if err == nil {
			d.conn = conn
		} else if time.Since(begin) > 30*time.Second {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = d.conn.Close() })
	must(b, d.conn.ExternalBind())
	ours := got(ldapsync.OpenLDAP(ldapsync.LDAPConfig{URLs: []string{address}, Places: ldapsync.DefaultPlaces("dc=example,dc=org")}))(b)
	b.Cleanup(func() { _ = ours.Close() })
	d.loop = &ldapsync.Loop{Store: y.store, Directory: ours, Log: zap.NewNop(), Now: time.Now}
	return d
}

// people gives as many entries as are written in one go, each with a certificate of its own.
func (d *directory) people(b *testing.B, part int) []person {
	out := make([]person, perRound)
	d.each(b, len(out), func(n int) error {
		who := fmt.Sprintf("person %d", part*perRound+n)
		p := person{dn: "cn=" + who + "," + people, debt: "user/" + who}
		var err error
		if p.entry, err = d.loop.Directory.Find(context.Background(), cert.User, cn.Name{Text: who, Key: who}); err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(d.last.Add(1)), Subject: pkix.Name{CommonName: who},
			NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0), EmailAddresses: []string{"person@example.org"},
		}
		p.der, err = x509.CreateCertificate(rand.Reader, template, template, d.key.Public(), d.key)
		out[n] = p
		return err
	})
	return out
}

// each calls do for 0 to n-1, by as many as are under way at a time.
func (d *directory) each(b *testing.B, n int, do func(int) error) {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

func (d *directory) add(p person) error {
	request := ldap.NewModifyRequest(p.dn, nil)
	request.Add(hasIt, []string{string(p.der)})
	return d.conn.Modify(request)
}

func (d *directory) modify(b *testing.B, people []person) {
	d.each(b, len(people), func(n int) error { return d.add(people[n]) })
}

func (d *directory) threeSteps(b *testing.B, all []person) {
	d.each(b, len(all), func(n int) error {
		look := ldap.NewSearchRequest(people, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, 10, false,
			"(entryUUID="+all[n].entry+")", []string{"entryUUID", hasIt}, nil)
		if _, err := d.conn.Search(look); err != nil {
			return err
		}
		if err := d.add(all[n]); err != nil {
			return err
		}
		found, err := d.conn.Search(look)
		if err == nil && (len(found.Entries) != 1 || string(found.Entries[0].GetRawAttributeValue(hasIt)) != string(all[n].der)) {
			err = errors.New("the entry does not hold what it was given")
		}
		return err
	})
}

// publish runs the loop until nothing is owed any more.
func (d *directory) publish(b *testing.B, _ []person) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	debts := got(d.store.Debts(ctx))(b)
	go func() { ended <- d.loop.Run(ctx) }()
	for _, debt := range debts {
		must(b, d.store.AwaitPaid(ctx, debt))
	}
	cancel()
	must(b, <-ended)
}

// owe enters a certificate as issued and owed to the directory.
func (d *directory) owe(p person) error {
	who := audit.Actor{Kind: audit.ByDaemon}
	c := certificate(d.rows.Add(1))
	c.CN = strings.TrimPrefix(p.debt, "user/")
	c.Key, c.Entry = c.CN, p.entry
	ctx := context.Background()
	_, err := d.store.Update(ctx, who, func(tx *store.Tx) (audit.Event, error) {
		return &audit.IssueIntent{Serial: c.Serial, Purpose: c.Purpose, CN: c.CN}, tx.Reserve(c)
	})
	if err != nil {
		return err
	}
	_, err = d.store.Update(ctx, who, func(tx *store.Tx) (audit.Event, error) {
		_, _, err := tx.Complete(c.Serial, p.der)
		if err == nil {
			_, err = tx.Owe(store.Directory, p.debt)
		}
		return &audit.IssueDone{Serial: c.Serial, Fingerprint: cert.FingerprintOf(p.der)}, err
	})
	return err
}
