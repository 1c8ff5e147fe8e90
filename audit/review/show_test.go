package review

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

func (w *world) show(f Filter) []Row {
	w.t.Helper()
	var rows []Row
	for row, err := range Show(w.ctx, w.store, f) {
		w.must(err)
		rows = append(rows, row)
	}
	return rows
}

func types(rows []Row) []string {
	var list []string
	for _, r := range rows {
		list = append(list, r.Event)
	}
	return list
}

func (w *world) wantShown(f Filter, want ...string) []Row {
	w.t.Helper()
	rows := w.show(f)
	if got := types(rows); !slices.Equal(got, want) {
		w.t.Errorf("%+v shows %v, want %v", f, got, want)
	}
	return rows
}

func TestShowTellsAWholeLife(t *testing.T) {
	w := newWorld(t)
	first := w.issue(1, "User 1")
	w.issue(2, "User 2")
	w.add(alice, &audit.IssueRedelivered{Serial: serial(1), Intent: first, RequestID: "request-1", SealedSHA256: "5ea1", Room: "room-1"})
	w.list(1)
	early := w.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "users", Number: "2"})
	revoked := w.revoke(1)
	w.add(daemon, &audit.CRLSigned{Issuer: "users", Number: "2", Intent: early, SHA256: "02", Room: w.state()})
	w.add(daemon, &audit.CRLSigned{Issuer: "others", Number: "9", Intent: revoked + 1})
	w.add(daemon, &audit.DirectoryPublished{Purpose: cert.User, CN: "User 1", Removed: []cert.Serial{serial(1)}})
	w.list(3, entryOf(1))
	w.list(4, entryOf(1))
	w.add(alice, &audit.RequestRefused{Method: "ca.issue", Purpose: "user", CN: "User 1", Code: "grant.none", Reason: "no grant"})
	issued := []string{"issue.intent", "issue.done", "directory.published", "issue.answering", "issue.redelivered"}
	ended := append(slices.Clone(issued), "revoke.done", "directory.published", "crl.signed", "crl.published")
	rows := w.wantShown(Filter{Serial: serial(1)}, ended...)
	if last := rows[len(rows)-1]; !strings.HasPrefix(last.Subject, "list 3 of users, commit ") {
		t.Errorf("its publication: %+v", last)
	}
	if rows[0].Index != first || rows[0].Actor != "caller provisioning 192.0.2.1:4711" ||
		rows[0].Subject != string(serial(1))+` for user "User 1", by users, request request-1` {
		t.Errorf("its intent: %+v", rows[0])
	}
	w.wantShown(Filter{CN: "user 1"}, append(slices.Clone(ended), "request.refused")...)
	w.wantShown(Filter{CN: "User 1", Serial: serial(2)})
	w.wantShown(Filter{Serial: serial(2)}, issued[:4]...)
	w.wantShown(Filter{Serial: serial(3)})
	if size, _ := w.store.Head(); int64(len(w.show(Filter{}))) != size {
		t.Error("without a filter not everything is shown")
	}
}

func TestShowFollowsARevocationThatWasWaiting(t *testing.T) {
	w := newWorld(t)
	intent := w.intent(1, "User 1")
	w.add(alice, &audit.RevokeDone{RequestID: "r", Reason: cert.Superseded, Pending: []cert.Serial{serial(1)}})
	w.list(1)
	r := revocation(1)
	w.add(alice, &audit.IssueDone{Serial: serial(1), Intent: intent, Room: w.state(), Revocation: &r})
	w.list(2, entryOf(1))
	w.wantShown(Filter{Serial: serial(1)}, "issue.intent", "revoke.done", "issue.done", "crl.signed", "crl.published")
	void := w.intent(2, "User 2")
	w.add(daemon, &audit.IssueAbandoned{Serial: serial(2), Intent: void, Why: "intent.late", Room: w.state()})
	rows := w.wantShown(Filter{Serial: serial(2)}, "issue.intent", "issue.abandoned")
	if rows[1].Subject != string(serial(2))+" never will be signed: intent.late" {
		t.Error(rows[1])
	}
	if r := w.verify(); r.Contradiction != nil {
		t.Fatal(r.Contradiction)
	}
}

// hostile moves the cursor, rings, writes from right to left, and breaks lines.
const hostile = "\x1b[2J\x07\u202eevil\r\n\u009b\u2028\u200b\u00ad\\\"" + "\xff"

func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	w := newWorld(t)
	hostileRoom := audit.RoomState{Room: hostile, Journal: hostile}
	for _, e := range []audit.Event{
		&audit.RootNamed{Subject: hostile}, &audit.IssuerNamed{Issuer: hostile, Room: hostile, Subject: hostile, Purposes: []cert.Purpose{hostile}},
		&audit.RootListNamed{Number: hostile}, &audit.ServiceStarted{Build: hostile, ConfigSHA256: hostile, Room: hostileRoom, Restored: &audit.RestoredFrom{Size: 1}}, &audit.ServiceStopped{}, &audit.ConfigReloaded{From: hostile, To: hostile},
		&audit.LogRecovered{Room: hostileRoom}, &audit.RequestRefused{Method: hostile, RequestID: hostile, Purpose: hostile, CN: hostile, Code: hostile, Reason: hostile},
		&audit.RequestPlanned{Method: hostile, Code: hostile, Effect: hostile}, &audit.StrangersTurnedAway{Cause: hostile},
		&audit.IssueIntent{RequestID: hostile, Issuer: hostile, Serial: hostile, Purpose: hostile, CN: hostile, Entry: hostile},
		&audit.IssueDone{Serial: hostile, Revocation: &audit.Revocation{Serial: hostile, Issuer: hostile}}, &audit.IssueAbandoned{Serial: hostile, Why: hostile},
		&audit.IssueAnswering{Serial: hostile, RequestID: hostile}, &audit.IssueRedelivered{Serial: hostile, RequestID: hostile},
		&audit.RevokeDone{Revoked: []audit.Revocation{{Serial: hostile}}, Pending: []cert.Serial{hostile}},
		&audit.ReleaseDone{RequestID: hostile, Released: []audit.Release{{Serial: hostile, Issuer: hostile}}},
		&audit.CRLIntent{Issuer: hostile, Number: hostile}, &audit.CRLSigned{Issuer: hostile, Number: hostile},
		&audit.CRLPublished{Commit: hostile, Lists: []audit.ListRef{{Issuer: hostile, Number: hostile}}},
		&audit.DirectoryPublished{Purpose: hostile, CN: hostile, Added: []cert.Serial{hostile}, Removed: []cert.Serial{hostile}},
		&audit.LogOpened{Origin: hostile, Room: hostile},
	} {
		w.add(audit.Actor{Kind: hostile, Name: hostile, Peer: hostile}, e)
	}
	w.fill(70)
	w.alter("UPDATE leaf SET leaf = ? WHERE position = 5", []byte(`{"`+hostile+`":1}`))
	var table bytes.Buffer
	w.must(WriteTable(&table, Show(w.ctx, w.store, Filter{})))
	text := table.String()
	if !utf8.ValidString(text) {
		t.Error("the table is not UTF-8")
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("the table has the character %U", r)
		}
	}
	size, _ := w.store.Head()
	if lines := strings.Count(text, "\n"); int64(lines) != size+1 {
		t.Errorf("%d lines for %d leaves and a heading", lines, size)
	}
	if n := strings.Count(text, "evil"); n < 40 {
		t.Errorf("hostile text is shown only %d times, so it is not quoted but lost", n)
	}
	seen := map[string]bool{}
	for _, kind := range types(w.show(Filter{})) {
		seen[kind] = true
	}
	for _, e := range audit.Events() {
		if e.Type() != "ceremony.root" && !seen[e.Type()] { // that one is the leaf that cannot be read
			t.Errorf("no %s was shown", e.Type())
		}
	}
}

func TestEveryEventHasASubject(t *testing.T) {
	for _, e := range audit.Events() {
		if got := subject(e); got == "" && e.Type() != "service.stopped" && e.Type() != "revoke.done" {
			t.Errorf("nothing is said of a %s", e.Type())
		}
	}
}

func TestTheTableIsAligned(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	var table bytes.Buffer
	w.must(WriteTable(&table, Show(w.ctx, w.store, Filter{})))
	lines := strings.Split(table.String(), "\n")
	column := strings.Index(lines[0], "EVENT")
	for _, line := range lines[1:5] {
		if !strings.HasPrefix(line[column:], "log.") && !strings.HasPrefix(line[column:], "ceremony.") {
			t.Errorf("not aligned: %q", line)
		}
	}
}

func TestAnotherImplementationComputesTheRoot(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	w.add(alice, &audit.RequestRefused{Code: "name.bad", CN: "<&>\u2028Zoë\u202e\x1b\"leaf\":", Reason: hostile})
	var lines bytes.Buffer
	w.must(WriteJSON(&lines, Show(w.ctx, w.store, Filter{})))
	for range 2 { // the whole log, and then the log as a checkpoint in git has it
		signed := w.checkpoint()
		if lines.Len() == 0 {
			signed = []byte(w.git("-C", w.repo, "show", "main~1:pki/checkpoint") + "\n")
			w.must(WriteJSON(&lines, Show(w.ctx, w.store, Filter{})))
		}
		c, err := audit.OpenCheckpoint(signed, w.logKey)
		w.must(err)
		cmd := exec.Command("python3", "testdata/root.py", fmt.Sprint(c.Size))
		cmd.Stdin = &lines
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("python3: %v\n%s", err, stderr.String())
		}
		if got, want := strings.TrimSpace(string(out)), strings.Split(string(signed), "\n")[2]; got != want {
			t.Errorf("python3 says that the root of %d leaves is %s, the checkpoint %s", c.Size, got, want)
		}
	}
}

func TestALeafThatCannotBeReadIsShown(t *testing.T) {
	w := newWorld(t)
	intent := w.issue(1, "User 1")
	w.fill(70)
	broken := []byte("not JSON\n\x1b")
	w.alter("UPDATE leaf SET leaf = ? WHERE position = ?", broken, intent)
	rows := w.wantShown(Filter{Serial: serial(1)}, "unreadable")
	if rows[0].Index != intent {
		t.Error(rows[0])
	}
	var table bytes.Buffer
	w.must(WriteTable(&table, Show(w.ctx, w.store, Filter{Serial: serial(1)})))
	if strings.Contains(table.String(), "0001-01-01") {
		t.Error("it is shown with a time that nobody knows")
	}
	var lines bytes.Buffer
	w.must(WriteJSON(&lines, Show(w.ctx, w.store, Filter{Serial: serial(1)})))
	var row struct {
		Index int64
		Leaf  json.RawMessage
		Raw   string
	}
	w.must(json.Unmarshal(lines.Bytes(), &row))
	if raw, err := base64.StdEncoding.DecodeString(row.Raw); err != nil || !bytes.Equal(raw, broken) || string(row.Leaf) != "null" || row.Index != intent {
		t.Errorf("as JSON: %s", lines.String())
	}
}

func TestShowEndsWithTheReader(t *testing.T) {
	w := newWorld(t)
	w.fill(2 * pageSize)
	for range Show(w.ctx, w.store, Filter{}) {
		break
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	var failed error
	rows := 0
	for _, err := range Show(ctx, w.store, Filter{}) {
		cancel()
		failed = err
		rows++
	}
	if !errors.Is(failed, context.Canceled) || rows != pageSize+1 {
		t.Errorf("a log that cannot be read ends after %d rows with %v", rows, failed)
	}
	for _, write := range []error{
		WriteTable(&bytes.Buffer{}, Show(ctx, w.store, Filter{})), WriteJSON(&bytes.Buffer{}, Show(ctx, w.store, Filter{})),
	} {
		if !errors.Is(write, context.Canceled) {
			t.Errorf("an output that ends in the middle says %v", write)
		}
	}
}
