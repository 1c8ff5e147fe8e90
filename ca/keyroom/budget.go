package keyroom

import "time"

// budget counts certificates by the minute for the last day.
type budget struct {
	minutes [24 * 60]struct{ minute, count int64 }
}

// spend counts one certificate signed at t.
func (b *budget) spend(t time.Time) {
	minute := t.Unix() / 60
	slot := &b.minutes[minute%int64(len(b.minutes))]
	if slot.minute != minute {
		slot.minute, slot.count = minute, 0
	}
	slot.count++
}

// spent counts the certificates signed in the hour and in the day before t.
func (b *budget) spent(t time.Time) (hour, day int64) {
	now := t.Unix() / 60
	for _, slot := range b.minutes {
		age := now - slot.minute // below zero after the clock went back: that must not free anything
		if slot.count == 0 || age >= int64(len(b.minutes)) {
			continue
		}
		day += slot.count
		if age < 60 {
			hour += slot.count
		}
	}
	return hour, day
}
