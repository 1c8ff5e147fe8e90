package store

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

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
	leaf, err := audit.Decode(entries[1].Leaf)
	if list, ok := leaf.Event.(*audit.RootListNamed); err != nil || !ok || list.Number != "2" {
		t.Errorf("%+v, %v", leaf, err)
	}
	var plan strings.Builder
	err = s.reading(func(st *statements) error {
		return st.rows(context.Background(), func(rows *sql.Rows) error {
			var id, parent, unused int
			var detail string
			err := rows.Scan(&id, &parent, &unused, &detail)
			plan.WriteString(detail + "\n")
			return err
		}, "EXPLAIN QUERY PLAN "+ceremonyLeaves)
	})
	if err != nil || !strings.Contains(plan.String(), "leaf_ceremony") {
		t.Errorf("%v, the plan:\n%s", err, &plan)
	}
}
