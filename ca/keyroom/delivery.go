package keyroom

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/ca/signer"
)

const (
	deliveryHour = time.Hour        // for how long secrets are sealed to one key
	deliveryLead = time.Minute      // how long before that the next one is made, so that it is in the file first
	deliveryLook = 10 * time.Second // how often the keeper looks
)

// delivery holds the keys that subjects' secrets are sealed to. Each is the newest for an hour, and is
// destroyed when the last secrets that were sealed to it have had their time. That is what deletes secrets,
// also from copies that nobody can reach any more.
//
// A key has an age, not a time at which it was made: a clock that is put back then makes no key younger, and
// one that is put forward ends keys early.
type delivery struct {
	file   *deliveryFile
	window time.Duration // how long a key lives on after its hour; 0: there are no keys
	rand   io.Reader
	log    *slog.Logger

	writing sync.Mutex // while the file changes; mu is never held then, so that no call waits for a disk
	mu      sync.Mutex
	seen    time.Time            // when the ages were right
	keys    []*deliveryKey       // oldest first
	unsaved bool                 // a key is not in the file
	undead  bool                 // a key in the file is destroyed
	left    bool                 // files of earlier rooms may be there
	wrong   map[string]time.Time // codes of what is wrong, since when
}

// The codes of what can be wrong with delivery keys, in the log and in the room's hello.
const (
	deliveryLost    = "delivery.lost"
	deliveryMake    = "delivery.make"
	deliveryWrite   = "delivery.write"
	deliveryDestroy = "delivery.destroy"
)

// fails keeps that something is wrong until mended says that it no longer is.
func (d *delivery) fails(code, text string, err error) {
	if d.wrong[code].IsZero() {
		d.wrong[code] = d.seen
	}
	d.log.Error(text, "code", code, "error", err.Error())
}

func (d *delivery) mended(code string) { delete(d.wrong, code) }

// troubles gives the codes of what is wrong now. That keys were lost is told for an hour.
func (d *delivery) troubles(now time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since, lost := d.wrong[deliveryLost]; lost && elapsed(since, now) > deliveryHour {
		d.mended(deliveryLost)
	}
	return slices.Sorted(maps.Keys(d.wrong))
}

type deliveryKey struct {
	secret [32]byte
	age    time.Duration
	id     signer.KeyID
	public string // hex
}

func newDeliveryKey(secret []byte, age time.Duration) (*deliveryKey, error) {
	private, err := ecdh.X25519().NewPrivateKey(secret)
	if err != nil {
		return nil, err
	}
	public := private.PublicKey()
	k := &deliveryKey{age: age, id: signer.KeyIDOf(public), public: hex.EncodeToString(public.Bytes())}
	copy(k.secret[:], secret)
	return k, nil
}

// elapsed is the greater of what the clock and, within one process, the monotonic clock say: that one stands
// still while the machine sleeps.
func elapsed(since, now time.Time) time.Duration {
	return max(0, now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// lifetime is the age at which a key is destroyed. The clocks of daemon and room may differ a little.
func (d *delivery) lifetime() time.Duration {
	if d.window == 0 {
		return 0
	}
	return deliveryHour + d.window + clockSkew
}

// grow lets the keys age, and destroys those whose time is over.
func (d *delivery) grow(now time.Time) {
	passed := min(elapsed(d.seen, now), d.lifetime()+1)
	d.seen = now
	d.keys = slices.DeleteFunc(d.keys, func(k *deliveryKey) bool {
		k.age += passed
		if k.age <= d.lifetime() && d.window > 0 {
			return false
		}
		clear(k.secret[:])
		d.undead = true
		return true
	})
}

// due tells whether the newest key's hour is over within lead.
func (d *delivery) due(lead time.Duration) bool {
	n := len(d.keys)
	return d.window > 0 && (n == 0 || d.keys[n-1].age >= deliveryHour-lead)
}

// next makes the key that follows the newest, if that is due; nil if it is not, or cannot be made.
func (d *delivery) next(lead time.Duration) *deliveryKey {
	if !d.due(lead) {
		return nil
	}
	var secret [32]byte
	defer clear(secret[:])
	_, err := io.ReadFull(d.rand, secret[:])
	var k *deliveryKey
	if err == nil {
		k, err = newDeliveryKey(secret[:], 0)
	}
	if err != nil {
		d.fails(deliveryMake, "there is no new delivery key", err)
		return nil
	}
	d.mended(deliveryMake)
	return k
}

// current gives the key to seal to. If the keeper did not come in time, as after a step of the clock, it is
// made here, and gets into the file as soon as the keeper comes.
func (d *delivery) current(now time.Time) signer.DeliveryKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grow(now)
	if k := d.next(0); k != nil {
		d.keys, d.unsaved = append(d.keys, k), true
	}
	if len(d.keys) == 0 {
		return signer.DeliveryKey{}
	}
	newest := d.keys[len(d.keys)-1]
	return signer.DeliveryKey{Public: newest.public, Until: now.Add(deliveryHour - newest.age).UTC().Truncate(time.Microsecond)}
}

// private gives the key of this name, nil if there is none any more.
func (d *delivery) private(id signer.KeyID, now time.Time) (*ecdh.PrivateKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grow(now)
	for _, k := range d.keys {
		if k.id == id {
			return ecdh.X25519().NewPrivateKey(k.secret[:])
		}
	}
	return nil, nil
}

// begin brings the file to what the memory is, whatever another room has left.
func (d *delivery) begin(now time.Time) {
	d.mu.Lock()
	d.left = true
	d.unsaved = d.unsaved || len(d.keys) == 0
	d.mu.Unlock()
	d.keep(now)
}

// keepUp keeps the keys until ctx ends.
func (d *delivery) keepUp(ctx context.Context, now func() time.Time) {
	ticker := time.NewTicker(deliveryLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.keep(now())
		}
	}
}

// keep makes the next key in time, and brings the file up to the memory.
func (d *delivery) keep(now time.Time) {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.clean()
	plain, next, undead := d.prepare(now)
	if plain == nil {
		return
	}
	defer clear(plain)
	err := d.file.write(plain)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case next == nil:
	case d.due(deliveryLead):
		d.keys = append(d.keys, next) // nobody knows it before the file does
	default: // a call could not wait for it, and made another
		clear(next.secret[:])
		d.undead = true
	}
	if err == nil {
		d.mended(deliveryWrite)
		d.destroyed()
		return
	}
	d.unsaved = true
	d.fails(deliveryWrite, "the delivery keys are not on the disk: after a restart of the key room, retries get no secrets", err)
	if undead {
		// What has to be destroyed does not wait for what should be kept.
		if err := d.file.discard(); err != nil {
			d.undead = true
			d.fails(deliveryDestroy, "a delivery key that should be destroyed is still on the disk", err)
		} else {
			d.destroyed()
		}
	}
}

// clean takes away what earlier rooms left behind.
func (d *delivery) clean() {
	d.mu.Lock()
	left := d.left
	d.mu.Unlock()
	if !left {
		return
	}
	err := d.file.clean()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.fails(deliveryDestroy, "delivery keys are left behind", err)
		return
	}
	d.left = false
	d.destroyed()
}

// destroyed keeps that all is destroyed that should be, if that is so.
func (d *delivery) destroyed() {
	if !d.left && !d.undead {
		d.mended(deliveryDestroy)
	}
}

// prepare gives what the file has to hold, nil if it does, and the key in it that is not yet in use.
func (d *delivery) prepare(now time.Time) (plain []byte, next *deliveryKey, undead bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grow(now)
	next = d.next(deliveryLead)
	if next == nil && !d.unsaved && !d.undead {
		return nil, nil, false
	}
	undead = d.undead
	d.unsaved, d.undead = false, false
	keys := slices.Clone(d.keys)
	if next != nil {
		keys = append(keys, next)
	}
	return encodeDelivery(d.seen, keys), next, undead
}

// close writes what the keeper did not come to write.
func (d *delivery) close(now time.Time) {
	d.mu.Lock()
	due := d.unsaved || d.undead
	d.mu.Unlock()
	if due {
		d.keep(now)
	}
}

// encodeDelivery writes the time at which the ages are right (microseconds), and of each key its age
// (nanoseconds) and secret.
func encodeDelivery(seen time.Time, keys []*deliveryKey) []byte {
	plain := make([]byte, 0, 8+len(keys)*(8+32)) // so that no copy is left behind
	plain = binary.BigEndian.AppendUint64(plain, uint64(seen.UnixMicro()))
	for _, k := range keys {
		plain = binary.BigEndian.AppendUint64(plain, uint64(k.age))
		plain = append(plain, k.secret[:]...)
	}
	return plain
}

func decodeDelivery(plain []byte) (seen time.Time, keys []*deliveryKey, err error) {
	if len(plain) < 8 || (len(plain)-8)%(8+32) != 0 {
		return seen, nil, errors.New("it has another form than this release writes")
	}
	seen = time.UnixMicro(int64(binary.BigEndian.Uint64(plain))).UTC()
	for rest := plain[8:]; len(rest) > 0; rest = rest[8+32:] {
		age := time.Duration(binary.BigEndian.Uint64(rest))
		if age < 0 {
			return seen, nil, errors.New("a key in it is of the future")
		}
		k, err := newDeliveryKey(rest[8:8+32], age)
		if err != nil {
			return seen, nil, fmt.Errorf("reading a key: %w", err)
		}
		keys = append(keys, k)
	}
	return seen, keys, nil
}
