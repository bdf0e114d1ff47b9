package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	var out strings.Builder
	if err := command(context.Background(), nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, b := range benches {
		if !strings.Contains(out.String(), "\n"+b.name+" ") && !strings.HasPrefix(out.String(), b.name+" ") {
			t.Errorf("bench %s is not listed in:\n%s", b.name, &out)
		}
	}
	for _, args := range [][]string{{"nothing"}, {"add", "add"}, {insideWord, "nothing", "{}"}, {insideWord, "fabric", "{}"}} {
		err := command(context.Background(), args, &out)
		if !errors.Is(err, errUsage) {
			t.Errorf("%q: error %v, want one of usage", args, err)
		}
	}
	if err := command(context.Background(), []string{"nothing"}, &out); !strings.Contains(err.Error(), "add") {
		t.Errorf("error %v, want one that names the benches", err)
	}
}
