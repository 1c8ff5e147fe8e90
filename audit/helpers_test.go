package audit

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 123456000, time.UTC)

// fill puts something into every field, another thing into each.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(noon.Add(time.Duration(*n) * time.Hour).Truncate(time.Second)))
		return
	case cert.Reason:
		v.Set(reflect.ValueOf(cert.Superseded))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d <&> é \u2028 \"\\ \t\x7f", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) << 40)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(*n % 256))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("an event with a " + v.Kind().String())
	}
}

// filled gives an event of every kind with something in every field.
func filled() []Event {
	events := Events()
	for _, e := range events {
		n := 0
		fill(reflect.ValueOf(e).Elem(), &n)
	}
	return events
}

var who = Actor{Kind: ByCaller, Name: "provisioning", Key: "ab12", Peer: "192.0.2.1:4711"}

func encode(t testing.TB, e Event) []byte {
	t.Helper()
	leaf, err := Encode(Leaf{Time: noon, Actor: who, Event: e})
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
