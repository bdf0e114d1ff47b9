package agentapi

import (
	"reflect"
	"testing"
	"time"
)

// TestDate: whatever time a status has, it moves along; what is not known stays so.
func TestDate(t *testing.T) {
	moment := reflect.TypeFor[time.Time]()
	var times func(v reflect.Value, f func(path string, t *time.Time), path string)
	times = func(v reflect.Value, f func(string, *time.Time), path string) {
		switch {
		case v.Type() == moment:
			f(path, v.Addr().Interface().(*time.Time))
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				times(v.Field(i), f, path+"."+v.Type().Field(i).Name)
			}
		case v.Kind() == reflect.Slice:
			if v.Len() == 0 {
				v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			}
			for i := range v.Len() {
				times(v.Index(i), f, path)
			}
		}
	}
	var s Status
	book := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	machine := book.Add(-time.Hour)
	count := 0
	times(reflect.ValueOf(&s).Elem(), func(_ string, at *time.Time) { *at = book.Add(-time.Minute); count++ }, "Status")
	s.At, s.EC2.ListedAt = book, time.Time{}
	s.Date(machine)
	times(reflect.ValueOf(&s).Elem(), func(path string, at *time.Time) {
		want := machine.Add(-time.Minute)
		switch path {
		case "Status.At":
			want = machine
		case "Status.EC2.ListedAt":
			want = time.Time{}
		}
		if !at.Equal(want) {
			t.Errorf("%s is %s, want %s", path, at, want)
		}
	}, "Status")
	if count < 12 {
		t.Errorf("%d times, want all of a status", count)
	}
}
