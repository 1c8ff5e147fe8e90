package chancery_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cut is where the power goes: of which process, and before or after which of its durable steps. The
// zero cut is none, and the steps are written down.
type cut struct {
	who  string
	side string
	step int
}

func (c cut) String() string { return fmt.Sprintf("%s %s:%d", c.who, c.side, c.step) }

func (o *office) environment(who string, c cut) []string {
	switch c.who {
	case "":
		return []string{"CHANCERY_CRASH_LOG=" + o.stepsFile(who)}
	case who:
		return []string{fmt.Sprintf("CHANCERY_CRASH=%s:%d", c.side, c.step)}
	}
	return nil
}

func (o *office) stepsFile(who string) string { return filepath.Join(o.dir, who+".steps") }

// story is what provisioning does while the power goes: a person and a server come, and the person
// leaves. It gives the first answers.
func (o *office) story() ([]request, []detail, error) {
	requests := []request{
		{"ca.issue", map[string]any{"request_id": "hr-1", "purpose": "user", "cn": "alice"}},
		{"ca.issue", map[string]any{"request_id": "web-1", "purpose": "server", "cn": "www.example.org"}},
		{"ca.revoke", map[string]any{"request_id": "hr-2", "reason": "keyCompromise"}},
	}
	var answers []detail
	for _, r := range requests {
		if r.method == "ca.revoke" {
			r.params["serial"] = answers[0]["serial"]
		}
		d, err := o.ask(r, o.revive)
		if err != nil {
			return nil, nil, err
		}
		answers = append(answers, d)
	}
	return requests, answers, o.published(requests[2], o.revive)
}

// trial lets the power go at one step and checks that nothing is lost, done twice, or told otherwise
// than before. It tells whether the process got as far as that step.
func trial(c cut) (o *office, hit bool, err error) {
	if o, err = newOffice(); err != nil {
		return nil, false, err
	}
	defer o.close()
	if err := o.open(c); err != nil {
		return o, false, err
	}
	victim := o.running[c.who]
	requests, answers, err := o.story()
	if err != nil {
		return o, false, err
	}
	// The end of a process is a part of its life, too.
	for _, who := range []string{theDaemon, theRoom} {
		if c.who == "" || c.who == who {
			if err := o.stop(who); err != nil {
				return o, false, err
			}
		}
	}
	hit = victim != nil && victim.dead() && victim.code() == -1
	return o, hit, o.healed(requests, answers)
}

// open starts both processes, of which one is to die.
func (o *office) open(c cut) error {
	for _, who := range []string{theRoom, theDaemon} {
		err := o.start(who, o.environment(who, c)...)
		if err != nil && who == theDaemon && c.who == theRoom {
			_, err = o.running[theRoom].wait(startTime) // without it the daemon does not start
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// healed checks that what was answered is still true.
func (o *office) healed(requests []request, answers []detail) error {
	if err := o.revive(); err != nil {
		return err
	}
	for i, r := range requests {
		again, err := o.ask(r, o.revive)
		if err == nil {
			err = sameAnswer(r, answers[i], again)
		}
		if err != nil {
			return err
		}
	}
	if err := o.published(requests[2], o.revive); err != nil {
		return err
	}
	signed, err := o.audited()
	if err != nil {
		return err
	}
	for _, d := range answers[:2] {
		if !signed[d["fingerprint"].(string)] {
			return fmt.Errorf("certificate %s was handed out, and the log does not have it", d["serial"])
		}
	}
	listed, err := o.revokedInGit()
	if err == nil && (len(listed) != 1 || !listed[answers[0]["serial"].(string)]) {
		err = fmt.Errorf("the list in git holds %v, not %s", listed, answers[0]["serial"])
	}
	return err
}

// steps runs the story without harm, and gives the durable steps of each process.
func steps(t *testing.T) map[string][]string {
	t.Helper()
	o, _, err := trial(cut{})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]string)
	for _, who := range []string{theDaemon, theRoom} {
		text, err := os.ReadFile(o.stepsFile(who))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			n, op, _ := strings.Cut(line, " ")
			if n != strconv.Itoa(i+1) {
				t.Fatalf("%s: line %d of its steps is %q", who, i+1, line)
			}
			found[who] = append(found[who], op)
		}
	}
	return found
}

// atOnce is how many installations live at the same time: they mostly wait for the disk.
const atOnce = 4

// TestPowerCuts kills one process of an installation at every durable step of its life, before and after
// it: each commit of the store, each record of the key room's journal, each change of its delivery keys, each
// move of the branch in git.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	all := steps(t)
	for who, want := range map[string][]string{theDaemon: {"store.commit", "git.push"}, theRoom: {"journal.append", "delivery.write"}} {
		for _, op := range want {
			if !strings.Contains(strings.Join(all[who], " "), op) {
				t.Errorf("the %s has no step %s: %v", who, op, all[who])
			}
		}
	}
	r := &rounds{slots: make(chan struct{}, atOnce), tallies: make(map[string]*tally)}
	for who, ops := range all {
		for n := 1; n <= len(ops)+slack; n++ {
			op := "one more"
			if n <= len(ops) {
				op = ops[n-1]
			}
			sure := n <= len(ops)-slack
			r.cut(t, cut{who, "before", n}, op, sure)
			r.cut(t, cut{who, "after", n}, op, sure)
		}
	}
	r.work.Wait()
	for key, n := range r.tallies {
		t.Logf("%-22s %3d trials, %3d healed, %d not reached", key, n.trials, n.healed, n.missed)
	}
	t.Logf("in %s", time.Since(begun).Round(time.Second))
}

// rounds are the trials of TestPowerCuts, some at the same time.
type rounds struct {
	work  sync.WaitGroup
	slots chan struct{}

	mu      sync.Mutex
	tallies map[string]*tally // by process and operation
}

type tally struct{ trials, healed, missed int }

// slack is by how many a life may have more or fewer steps than another one: changes that come at the
// same moment share a commit.
const slack = 2

// cut begins one trial of a step, which each life surely has, or may have.
func (r *rounds) cut(t *testing.T, c cut, op string, sure bool) {
	r.slots <- struct{}{}
	r.work.Go(func() {
		defer func() { <-r.slots }()
		o, hit, err := trial(c)
		if err == nil && !hit && sure {
			err = errors.New("the process did not get that far")
		}
		if o != nil {
			if err != nil {
				t.Logf("%s: its processes said\n%s\n%s", c, &o.running[theRoom].out, &o.running[theDaemon].out)
			}
			err = errors.Join(err, os.RemoveAll(o.dir))
		}
		if err != nil {
			t.Errorf("%s (%s): %v", c, op, err)
		}
		r.count(c.who+" "+op, hit, err == nil)
	})
}

func (r *rounds) count(key string, hit, healed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tallies[key] == nil {
		r.tallies[key] = new(tally)
	}
	r.tallies[key].trials++
	switch {
	case !hit:
		r.tallies[key].missed++
	case healed:
		r.tallies[key].healed++
	}
}

// TestPowerCutsUnderLoad kills one process or both at random moments while four callers work, again and
// again. Nothing that was acknowledged may be missing in the end.
func TestPowerCutsUnderLoad(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	o, err := newOffice()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if err := o.revive(); err != nil {
		t.Fatal(err)
	}
	l := &load{office: o}
	var callers sync.WaitGroup
	for n := range 4 {
		callers.Go(func() { l.call(t, n) })
	}
	for range 20 {
		time.Sleep(time.Duration(20+random.IntN(300)) * time.Millisecond)
		for who, chosen := range map[string]bool{theRoom: random.IntN(3) > 0, theDaemon: random.IntN(3) > 0} {
			if p := o.running[who]; chosen {
				p.kill()
			}
		}
		if err := o.revive(); err != nil {
			t.Error(err)
			break
		}
	}
	l.enough.Store(true)
	callers.Wait()
	if t.Failed() {
		return
	}
	l.check(t)
}

// load is what four callers were told.
type load struct {
	office *office
	enough atomic.Bool

	mu      sync.Mutex
	issued  []told
	revoked []told
}

type told struct {
	request request
	answer  detail
}

func (l *load) call(t *testing.T, caller int) {
	wait := func() error { time.Sleep(10 * time.Millisecond); return nil }
	for n := 0; !l.enough.Load(); n++ {
		id := fmt.Sprintf("%d-%d", caller, n)
		issue := request{"ca.issue", map[string]any{"request_id": "come-" + id, "purpose": "user", "cn": "u" + id}}
		d, err := l.office.ask(issue, wait)
		if err != nil {
			t.Error(err)
			return
		}
		l.note(&l.issued, told{issue, d})
		if n%3 > 0 {
			continue
		}
		revoke := request{"ca.revoke", map[string]any{"request_id": "go-" + id, "cn": "u" + id, "purpose": "user"}}
		if d, err = l.office.ask(revoke, wait); err != nil {
			t.Error(err)
			return
		}
		l.note(&l.revoked, told{revoke, d})
	}
}

func (l *load) note(list *[]told, one told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, one)
}

// check compares what the callers were told with what there is.
func (l *load) check(t *testing.T) {
	o := l.office
	for _, one := range append(l.issued, l.revoked...) {
		again, err := o.ask(one.request, o.revive)
		if err == nil {
			err = sameAnswer(one.request, one.answer, again)
		}
		if err == nil && one.request.method == "ca.revoke" {
			err = o.published(one.request, o.revive)
		}
		if err != nil {
			t.Error(err)
		}
	}
	signed, err := o.audited()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range l.issued {
		if !signed[one.answer["fingerprint"].(string)] {
			t.Errorf("%s was handed out, and the log does not have it", one.request.id())
		}
	}
	listed, err := o.revokedInGit()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range l.revoked {
		serial := one.answer["revoked"].([]any)[0].(map[string]any)["serial"].(string)
		if !listed[serial] {
			t.Errorf("%s was acknowledged, and %s is not in the list", one.request.id(), serial)
		}
	}
	if len(listed) != len(l.revoked) {
		t.Errorf("%d certificates in the list, %d were revoked", len(listed), len(l.revoked))
	}
	t.Logf("%d issues and %d revocations acknowledged, all there", len(l.issued), len(l.revoked))
}
