package keyroom

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

// Handle answers one batch. An error means that the journal could not be written: what is on the disk
// is then unknown, the reply must not be sent, and the process must end.
func (r *Room) Handle(b signer.Batch) (signer.Reply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(b.Calls) > signer.MaxCalls {
		return r.refused(refuse("batch.size", "%d calls; at most %d", len(b.Calls), signer.MaxCalls)), nil
	}
	if b.From == signer.ReadOnly {
		return r.answerReader(b)
	}
	if b.From < r.tree.Size() && b.From+int64(len(b.Leaves)) >= r.tree.Size() {
		return signer.Reply{State: r.state(), Stale: true}, nil
	}
	leaves, refusal := r.checkLeaves(b)
	if refusal != nil {
		reply := r.refused(refusal)
		// A daemon that was overtaken asks about old leaves; whether its store is old too, only it knows.
		reply.Stale = refusal.Code == "log.smaller"
		return reply, nil
	}
	// Microseconds, as the journal keeps them: a replay must decide as this does.
	w := &work{room: r, now: r.now().UTC().Truncate(time.Microsecond), leaves: leaves, first: b.From}
	r.doubtClock(w.now)
	w.readAll(b)
	results := make([]signer.Result, len(b.Calls))
	for i, call := range b.Calls {
		results[i] = w.answer(call)
	}
	if len(b.Leaves) > 0 || len(w.effects) > 0 {
		rec := record{time: w.now, first: b.From, leaves: b.Leaves, effects: w.effects}
		if err := r.commit(rec); err != nil {
			return signer.Reply{}, err
		}
	}
	return signer.Reply{State: r.state(), Results: results}, nil
}

func (r *Room) refused(refusal *signer.Refusal) signer.Reply {
	r.log.Warn("refused a batch", "code", refusal.Code, "reason", refusal.Reason)
	return signer.Reply{State: r.state(), Refused: refusal}
}

func refuse(code, format string, args ...any) *signer.Refusal {
	return &signer.Refusal{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// checkLeaves checks that the leaves of b continue the log that the room has read. Nothing changes, so
// a batch that fails here had no effect.
func (r *Room) checkLeaves(b signer.Batch) ([]audit.Leaf, *signer.Refusal) {
	size, root := r.tree.Size(), r.tree.Root()
	switch {
	case b.From < 0 || b.From+int64(len(b.Leaves)) < size:
		return nil, refuse("log.smaller", "the room has read %d leaves, the batch ends at %d: the store is an old copy; run chancery recover", size, b.From+int64(len(b.Leaves)))
	case b.From > size:
		return nil, refuse("log.gap", "the room has read %d leaves, the batch begins at %d", size, b.From)
	case b.FromRoot != hex.EncodeToString(root[:]):
		return nil, refuse("log.fork", "the root at %d leaves is another than the one the room computed: this is not the log that the room follows", size)
	}
	tree := r.tree.Clone()
	for _, leaf := range b.Leaves {
		tree.Append(leaf)
	}
	if root = tree.Root(); b.Root != hex.EncodeToString(root[:]) {
		return nil, refuse("log.root", "the leaves from %d on do not give the root that came with them", size)
	}
	leaves := make([]audit.Leaf, len(b.Leaves))
	for i, leaf := range b.Leaves {
		decoded, err := audit.Decode(leaf)
		if err != nil {
			return nil, refuse("leaf.not_canonical", "leaf %d: %v", size+int64(i), err)
		}
		if refusal := r.checkEvent(size+int64(i), decoded.Event); refusal != nil {
			return nil, refusal
		}
		leaves[i] = decoded
	}
	return leaves, nil
}

// checkEvent refuses a log that knows more of this room than the room does.
func (r *Room) checkEvent(index int64, event audit.Event) *signer.Refusal {
	if e, ok := event.(*audit.LogOpened); ok {
		if index != 0 || e.Origin != r.config.Origin || e.Room != r.config.Room {
			return refuse("log.other", "leaf %d opens the log %q of room %q", index, e.Origin, e.Room)
		}
		if e.LogKey != r.logVKey || e.RecoveryKey != r.config.RecoveryKey {
			return refuse("log.other", "the first leaf names a log or recovery key that is not this room's")
		}
		return nil
	}
	if index == 0 {
		return refuse("log.other", "the first leaf does not open a log")
	}
	told, ok := audit.RoomStateIn(event)
	if !ok || told.Room != r.config.Room {
		return nil
	}
	chain, ok := r.journal.chainAt(told.Sequence)
	if !ok {
		return refuse("room.behind", "leaf %d has seen record %d of this room's journal, which ends at %d: the key room is an old copy; put back its newest copy", index, told.Sequence, len(r.journal.records))
	}
	if told.Journal != hex.EncodeToString(chain[:]) {
		return refuse("room.diverged", "leaf %d has seen another record %d of this room's journal: put back the copy of the key room that belongs to this log", index, told.Sequence)
	}
	return nil
}

// answerReader answers questions that change nothing and need no place in the log.
func (r *Room) answerReader(b signer.Batch) (signer.Reply, error) {
	results := make([]signer.Result, len(b.Calls))
	for i, call := range b.Calls {
		var err error
		switch call.Kind {
		case signer.Leaves:
			results[i].Leaves, err = r.leavesFrom(call.Index)
		case signer.Lookup:
			results[i].DER, err = (&work{room: r, first: r.tree.Size()}).lookup(call.Index)
		default:
			err = refuse("batch.read_only", "%s needs the log", call.Kind)
		}
		if err != nil {
			results[i] = signer.Result{Refused: asRefusal(err)}
		}
	}
	return signer.Reply{State: r.state(), Results: results}, nil
}

// leavesFrom gives leaves that the room holds, whole records up to some 256 KiB, at least one leaf.
func (r *Room) leavesFrom(index int64) ([][]byte, error) {
	if index < 0 || index > r.tree.Size() {
		return nil, refuse("index.unknown", "the room has read %d leaves", r.tree.Size())
	}
	var leaves [][]byte
	for size := 0; size < 256<<10 && index < r.tree.Size(); {
		rec, err := r.journal.holding(index)
		if err != nil {
			return nil, err
		}
		for _, leaf := range rec.leaves[index-rec.first:] {
			leaves = append(leaves, leaf)
			size += len(leaf)
			index++
		}
	}
	return leaves, nil
}

// lookup gives the certificate of the intent at index, nil if it was not signed.
func (w *work) lookup(index int64) ([]byte, error) {
	intent, _, err := w.intent(index)
	if err != nil {
		return nil, err
	}
	der, err := w.already(intent)
	var spent *signer.Refusal
	if errors.As(err, &spent) {
		return nil, nil
	}
	return der, err
}

// stored reads a certificate back from the journal.
func (r *Room) stored(s signature, serial cert.Serial) ([]byte, error) {
	e, err := r.signing(s, serial)
	return e.data, err
}

// signing gives what the journal says of a signature.
func (r *Room) signing(s signature, serial cert.Serial) (effect, error) {
	rec, err := r.journal.read(s.record)
	if err != nil {
		return effect{}, err
	}
	for _, e := range rec.effects {
		if e.kind == didSign && e.serial == serial {
			return e, nil
		}
	}
	return effect{}, fmt.Errorf("record %d of the journal does not hold %s", s.record, serial)
}
