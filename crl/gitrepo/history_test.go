package gitrepo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// subjects are those that History shows.
func subjects(t *testing.T, r Remote) (all []string) {
	t.Helper()
	err := History(context.Background(), r, "site/pki", func(c *Commit) error {
		subject, _, _ := strings.Cut(c.Message, "\n")
		all = append(all, subject)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHistory(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	if got := subjects(t, l); got != nil {
		t.Fatal(got)
	}
	othersTree(t, path)
	base := publish(t, l, Files{"number": []byte("0")})
	for range 3 {
		if _, _, err := publisher(l).Publish(context.Background(), increment); err != nil {
			t.Fatal(err)
		}
		c := git(t, path, "commit-tree", "-m", "elsewhere", "-p", "main", "main^{tree}")
		git(t, path, "update-ref", "refs/heads/main", c)
	}
	// Somebody worked on an old state and merges: ours are on the second side.
	old := git(t, path, "commit-tree", "-m", "on an old state", "-p", base, base+"^{tree}")
	merge := git(t, path, "commit-tree", "-m", "merge", "-p", old, "-p", "main", "main^{tree}")
	git(t, path, "update-ref", "refs/heads/main", merge)
	if _, _, err := publisher(l).Publish(context.Background(), increment); err != nil {
		t.Fatal(err)
	}
	// A merge that smuggles a change in, and one commit of a vandal.
	b := blob(t, path, "evil")
	evil := rawTree(t, path, "40000", "site", rawTree(t, path, "40000", "pki", rawTree(t, path, "100644", "number", b)))
	git(t, path, "update-ref", "refs/heads/main", git(t, path, "commit-tree", "-m", "evil merge", "-p", "main", "-p", old, evil))
	link := rawTree(t, path, "40000", "site", rawTree(t, path, "120000", "pki", b))
	git(t, path, "update-ref", "refs/heads/main", git(t, path, "commit-tree", "-m", "link", "-p", "main", link))

	want := []string{"link", "evil merge", "number 4", "number 3", "number 2", "number 1", "crl(users): number 1"}
	if got := subjects(t, l); !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
	// Native git agrees on those that are not merges.
	native := strings.Split(git(t, path, "log", "--no-merges", "--topo-order", "--full-history", "--format=%s", "main", "--", "site/pki"), "\n")
	if !slices.Equal(native, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "evil merge" })) {
		t.Errorf("native git says %q", native)
	}
	git(t, path, "gc", "-q")
	if got := subjects(t, l); !slices.Equal(got, want) {
		t.Errorf("packed: history %q", got)
	}
}

// TestHistoryLeavesNoFiles: each object is closed when it is read, and not when the collector comes.
func TestHistoryLeavesNoFiles(t *testing.T) {
	l := openMain(t, newBare(t))
	for i := range 20 {
		publish(t, l, Files{"number": []byte(strconv.Itoa(i))})
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if all := subjects(t, l); len(all) != 20 {
		t.Fatal(all)
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if file, err := os.Readlink(fd); err == nil && strings.HasPrefix(file, l.path) {
			t.Errorf("%s is open", file)
		}
	}
}

func TestHistoryOrderSurvivesClocks(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	hour := 0
	for n := range 5 {
		p := publisher(l)
		hour = (hour + 7) % 5 // 2 4 1 3 0
		p.Now = func() time.Time { return eastern().Add(time.Duration(hour) * time.Hour) }
		if _, _, err := p.Publish(context.Background(), increment); err != nil {
			t.Fatal(n, err)
		}
	}
	if got := strings.Join(subjects(t, l), ","); got != "number 5,number 4,number 3,number 2,number 1" {
		t.Error(got)
	}
}

func TestHistoryShowsFilesAndTrailers(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	for n := 1; n <= 3; n++ {
		s := strconv.Itoa(n)
		_, _, err := publisher(l).Publish(context.Background(), func(Files) (Change, error) {
			return Change{
				Files:   Files{"ca/n": []byte(s)},
				Message: "crl(users): number " + s + "\n\nbody: not a trailer\n\nCRL-Number: " + s + "\nOther: a: b",
			}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 3
	done := errors.New("done")
	err := History(context.Background(), l, "site/pki", func(c *Commit) error {
		content, ok, err := c.File(context.Background(), "ca/n")
		if err != nil || !ok || string(content) != strconv.Itoa(n) || c.Trailer("CRL-Number") != string(content) {
			t.Errorf("%d: %q %v %v %q", n, content, ok, err, c.Trailer("CRL-Number"))
		}
		if c.Trailer("Other") != "a: b" || c.Trailer("body") != "" || c.Trailer("crl(users)") != "" {
			t.Errorf("trailers of %q", c.Message)
		}
		if _, ok, err := c.File(context.Background(), "ca"); ok || err != nil {
			t.Error("a folder is a file", err)
		}
		if _, ok, err := c.File(context.Background(), "no/such"); ok || err != nil {
			t.Error("there is no such file", err)
		}
		if !c.Time.Equal(eastern()) || c.Time.Location() != time.UTC {
			t.Error(c.Time)
		}
		if want := git(t, path, "rev-parse", "main~"+strconv.Itoa(3-n)); c.Hash != want {
			t.Errorf("hash %s, want %s", c.Hash, want)
		}
		if n--; n == 1 {
			return done
		}
		return nil
	})
	if err != done || n != 1 {
		t.Error(n, err)
	}
}
