package store

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-ca/chancery/audit"
)

func TestCeremonyIsFoundByItsIndex(t *testing.T) {
	s, _ := newStore(t)
	mustUpdate(t, s, func(*Tx) (audit.Event, error) {
		return &audit.RequestRefused{Code: "x", Reason: `"type":"ceremony.root_crl"`}, nil // no leaf of the ceremony
	})
	later := &audit.RootListNamed{Number: "2", ThisUpdate: epoch, NextUpdate: epoch.Add(time.Hour)}
	mustUpdate(t, s, func(*Tx) (audit.Event, error) { return later, nil })
	mustUpdate(t, s, stopped)
	entries, err := s.Ceremony(context.Background())
	if err != nil || len(entries) != 2 || entries[0].Index != 1 || entries[1].Index != 3 {
		t.Fatalf("%+v, %v", entries, err)
	}
	if list, ok := entries[1].Event.(*audit.RootListNamed); !ok || list.Number != "2" {
		t.Errorf("%+v", entries[1].Event)
	}
	if steps := plan(t, s, ceremonyLeaves); !cmp.Equal(steps, []string{"SCAN leaf USING INDEX leaf_ceremony"}) {
		t.Errorf("the plan is %q", steps)
	}
}
