package review

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// Filter selects leaves. The zero value selects all. With a serial number, or the names of certificates
// as they were issued, it selects their whole lives: up to the first list after a revocation, and its
// publication.
type Filter struct {
	Serial cert.Serial
	CN     string // in either case
}

// Row is one leaf, told in words. Its texts are fit for a terminal: what is not printable is quoted.
type Row struct {
	Index   int64     `json:"index"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Event   string    `json:"event"`
	Subject string    `json:"subject"`
	Hash    string    `json:"hash"` // of the leaf in the tree (RFC 6962 section 2.1), hex
	Leaf    []byte    `json:"-"`    // as it stands in the log

	unreadable bool
}

// Show gives the leaves that the filter selects, in order. It verifies nothing. A leaf that cannot be
// read is always among them. An error ends the sequence.
func Show(ctx context.Context, log Log, f Filter) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		s := &selector{Filter: f, serials: make(map[cert.Serial]bool), listed: make(map[cert.Issuer]int64), shown: make(map[cert.Issuer]*big.Int)}
		size, _ := log.Head()
		err := pages(ctx, log, size, func(from int64, leaves [][]byte) error {
			for i, leaf := range leaves {
				if row, ok := s.row(from+int64(i), leaf); ok && !yield(row, nil) {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Row{}, err)
		}
	}
}

var errEnough = errors.New("nobody reads on")

// selector goes through the log and remembers what the filter is about.
type selector struct {
	Filter
	serials map[cert.Serial]bool
	listed  map[cert.Issuer]int64    // the leaf of a revocation that no list shown so far holds
	shown   map[cert.Issuer]*big.Int // the list that was shown for it, while it is not published
}

func (s *selector) row(index int64, encoded []byte) (Row, bool) {
	hash := tlog.RecordHash(encoded)
	row := Row{Index: index, Hash: hex.EncodeToString(hash[:]), Leaf: encoded}
	leaf, err := audit.Decode(encoded)
	if err != nil {
		row.Event, row.Subject, row.unreadable = "unreadable", word(err.Error()), true
		return row, true
	}
	row.Time, row.Actor, row.Event, row.Subject = leaf.Time, actor(leaf.Actor), leaf.Event.Type(), subject(leaf.Event)
	return row, s.Filter == Filter{} || s.selects(index, leaf.Event)
}

func (s *selector) selects(index int64, event audit.Event) bool {
	switch e := event.(type) {
	case *audit.RequestRefused: // the CN stands there as the caller wrote it, or quoted
		return s.Serial == "" && (s.named(e.CN) || e.CN == strconv.Quote(s.CN))
	case *audit.IssueIntent:
		if (s.Serial == "" || s.Serial == e.Serial) && (s.CN == "" || s.named(e.CN)) {
			s.serials[e.Serial] = true
		}
		return s.serials[e.Serial]
	case *audit.IssueDone:
		if e.Revocation != nil {
			s.revoked(index, *e.Revocation)
		}
		return s.serials[e.Serial]
	case *audit.IssueAbandoned:
		return s.serials[e.Serial]
	case *audit.IssueAnswering:
		return s.serials[e.Serial]
	case *audit.IssueRedelivered:
		return s.serials[e.Serial]
	case *audit.RevokeDone:
		selected := slices.ContainsFunc(e.Pending, func(serial cert.Serial) bool { return s.serials[serial] })
		for _, r := range e.Revoked {
			selected = s.revoked(index, r) || selected
		}
		return selected
	case *audit.ReleaseDone:
		selected := false
		for _, r := range e.Released {
			selected = s.revoked(index, audit.Revocation{Serial: r.Serial, Issuer: r.Issuer}) || selected
		}
		return selected
	case *audit.DirectoryPublished:
		ours := func(serial cert.Serial) bool { return s.serials[serial] }
		return slices.ContainsFunc(e.Added, ours) || slices.ContainsFunc(e.Removed, ours) || s.Serial == "" && s.named(e.CN)
	case *audit.CRLSigned:
		return s.firstList(e)
	case *audit.CRLPublished:
		return s.firstPublication(e)
	}
	return false
}

func (s *selector) named(cn string) bool { return s.CN != "" && strings.EqualFold(s.CN, cn) }

func (s *selector) revoked(index int64, r audit.Revocation) bool {
	if s.serials[r.Serial] {
		s.listed[r.Issuer] = index
	}
	return s.serials[r.Serial]
}

// firstList selects the first list that was announced after a revocation: the key room has read the
// revocation when it signs that list.
func (s *selector) firstList(e *audit.CRLSigned) bool {
	revoked, waiting := s.listed[e.Issuer]
	if !waiting || e.Intent < revoked {
		return false
	}
	delete(s.listed, e.Issuer)
	if n, ok := new(big.Int).SetString(e.Number, 10); ok {
		s.shown[e.Issuer] = n
	}
	return true
}

func (s *selector) firstPublication(e *audit.CRLPublished) bool {
	selected := false
	for _, ref := range e.Lists {
		n, ok := new(big.Int).SetString(ref.Number, 10)
		if shown := s.shown[ref.Issuer]; shown != nil && ok && n.Cmp(shown) >= 0 {
			delete(s.shown, ref.Issuer)
			selected = true
		}
	}
	return selected
}

// WriteTable writes rows as aligned text.
func WriteTable(w io.Writer, rows iter.Seq2[Row, error]) error {
	const layout = "%7s  %-20s  %-36s  %-19s  %s\n"
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, layout, "INDEX", "TIME", "ACTOR", "EVENT", "SUBJECT") // a failure shows at Flush
	for row, err := range rows {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		when := row.Time.Format(time.RFC3339)
		if row.unreadable {
			when = ""
		}
		fmt.Fprintf(out, layout, strconv.FormatInt(row.Index, 10), when, row.Actor, row.Event, row.Subject)
	}
	return out.Flush()
}

// WriteJSON writes one line per row: {"index":N,"hash":"...","leaf":L}. L is the leaf octet by octet, so
// that whoever cuts it out of the line can compute the hash. A leaf that cannot be read is null and
// stands in base64 in the member raw.
func WriteJSON(w io.Writer, rows iter.Seq2[Row, error]) error {
	out := bufio.NewWriter(w)
	for row, err := range rows {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if row.unreadable {
			fmt.Fprintf(out, `{"index":%d,"hash":"%s","leaf":null,"raw":"%s"}`+"\n", row.Index, row.Hash, base64.StdEncoding.EncodeToString(row.Leaf))
		} else {
			fmt.Fprintf(out, `{"index":%d,"hash":"%s","leaf":%s}`+"\n", row.Index, row.Hash, row.Leaf)
		}
	}
	return out.Flush()
}
