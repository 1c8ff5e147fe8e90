package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

var (
	errBooks    = errors.New("reading or writing the books")
	errReadBack = errors.New("the directory does not hold what it was given")
	errUnstable = errors.New("the books changed during each of several visits")
)

// maxRounds bounds how often one visit looks at the books.
const maxRounds = 4

// place is a name that certificates are published under.
type place struct {
	purpose cert.Purpose
	key     string
}

func (p place) String() string { return string(p.purpose) + "/" + p.key }

// task is what one entry of the directory has to hold and must not hold. Both are ours.
type task struct {
	target    Target
	cn        string
	want, not []issued
	err       error // why the entry is not known
}

type issued struct {
	serial cert.Serial
	der    []byte
}

// tasks reads the books. Most names have one entry; there are more when certificates of one name were
// announced for different entries, and none when nothing was ever signed.
func (l *Loop) tasks(ctx context.Context, p place) ([]task, error) {
	found, err := l.Store.Find(ctx, store.Query{Purpose: p.purpose, Key: p.key, States: []store.State{store.StateLive, store.StateRevoked}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBooks, err)
	}
	find := sync.OnceValues(func() (string, error) {
		return l.Directory.Find(ctx, p.purpose, name.Name{Text: found[0].CN, Key: p.key})
	})
	var tasks []task
	for _, c := range found {
		entry := c.Entry
		if entry == "" { // the directory could not be asked when the intent was made
			entry, err = find()
			if errors.Is(err, ErrNoEntry) && !l.wanted(c) {
				continue
			}
			if err != nil {
				tasks = append(tasks, task{cn: c.CN, err: fmt.Errorf("finding the entry: %w", err)})
				continue
			}
		}
		i := slices.IndexFunc(tasks, func(t task) bool { return t.err == nil && t.target.Entry == entry })
		if i < 0 {
			i = len(tasks)
			tasks = append(tasks, task{target: Target{Purpose: c.Purpose, Entry: entry}})
		}
		t := &tasks[i]
		t.target.Name, t.cn = name.Name{Text: c.CN, Key: c.Key}, c.CN // as the newest spells it
		if l.wanted(c) {
			t.want = append(t.want, issued{c.Serial, c.DER})
		} else {
			t.not = append(t.not, issued{c.Serial, c.DER})
		}
	}
	return tasks, nil
}

// wanted tells whether a signed certificate belongs into the directory. RFC 5280 section 4.1.2.5: the
// validity includes notAfter itself.
func (l *Loop) wanted(c store.Certificate) bool {
	return c.State == store.StateLive && !l.Now().After(c.NotAfter)
}

func sameTasks(a, b []task) bool {
	same := func(x, y issued) bool { return x.serial == y.serial }
	return slices.EqualFunc(a, b, func(x, y task) bool {
		return x.target == y.target && slices.EqualFunc(x.want, y.want, same) && slices.EqualFunc(x.not, y.not, same)
	})
}

// compare reads the entry and gives what it lacks and what it must not have.
func (l *Loop) compare(ctx context.Context, t task) (missing, extra []issued, err error) {
	if t.err != nil {
		return nil, nil, t.err
	}
	have, err := l.Directory.Read(ctx, t.target)
	if err != nil && !errors.Is(err, ErrNoEntry) {
		return nil, nil, fmt.Errorf("reading entry %s: %w", t.target.Entry, err)
	}
	// An entry that is not there lacks everything; whether it can be made, Apply will say.
	holds := func(i issued) bool {
		return slices.ContainsFunc(have, func(v []byte) bool { return bytes.Equal(v, i.der) })
	}
	for _, i := range t.want {
		if !holds(i) {
			missing = append(missing, i)
		}
	}
	for _, i := range t.not {
		if holds(i) {
			extra = append(extra, i)
		}
	}
	return missing, extra, nil
}

// carryOut makes the entry hold what it should, reads it back, and gives the event that says so.
func (l *Loop) carryOut(ctx context.Context, t task) (*audit.DirectoryPublished, error) {
	done := &audit.DirectoryPublished{Purpose: t.target.Purpose, CN: t.cn, Entry: t.target.Entry}
	missing, extra, err := l.compare(ctx, t)
	if err != nil || len(missing)+len(extra) == 0 {
		return done, err
	}
	if err := l.Directory.Apply(ctx, t.target, ders(missing), ders(extra)); err != nil {
		return nil, fmt.Errorf("writing entry %s: %w", t.target.Entry, err)
	}
	done.Added, done.Removed = serials(missing), serials(extra)
	missing, extra, err = l.compare(ctx, t)
	if err == nil && len(missing)+len(extra) > 0 {
		err = fmt.Errorf("%w: entry %s lacks %v and still has %v", errReadBack, t.target.Entry, serials(missing), serials(extra))
	}
	return done, err
}

// visit makes the directory say what the books say of one name. It gives an event for every entry
// that it changed, also with an error, and one event of the name if there was nothing to change.
//
// The books are read again at the end. Two visits of one name can overlap, a sweep and a payment or
// those of two daemons, and the slower may put back what the other has just removed; but whoever
// writes last also looks last.
func (l *Loop) visit(ctx context.Context, p place) ([]*audit.DirectoryPublished, error) {
	var changed []*audit.DirectoryPublished
	unchanged := &audit.DirectoryPublished{Purpose: p.purpose, CN: p.key}
	tasks, err := l.tasks(ctx, p)
	if err != nil {
		return nil, err
	}
	for range maxRounds {
		var failed []error // one entry's failure must not keep a revoked certificate in another
		for _, t := range tasks {
			done, err := l.carryOut(ctx, t)
			failed = append(failed, err)
			if err == nil && len(done.Added)+len(done.Removed) > 0 {
				changed = append(changed, done)
			} else if err == nil {
				unchanged = done
			}
		}
		if err := errors.Join(failed...); err != nil {
			return changed, err
		}
		again, err := l.tasks(ctx, p)
		if err != nil {
			return changed, err
		}
		if sameTasks(tasks, again) {
			if len(changed) == 0 {
				changed = append(changed, unchanged)
			}
			return changed, nil
		}
		tasks = again
	}
	return changed, errUnstable
}

func ders(list []issued) [][]byte {
	var out [][]byte
	for _, i := range list {
		out = append(out, i.der)
	}
	return out
}

func serials(list []issued) []cert.Serial {
	var out []cert.Serial
	for _, i := range list {
		out = append(out, i.serial)
	}
	return out
}
