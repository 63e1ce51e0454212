package value

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// The caller that sends files and the machine that puts them in place must see
// the same ones.
func TestEachLocal(t *testing.T) {
	t.Parallel()
	file := func(p string) *File { return NewLocalFile(p, "/x/"+p, 1, time.Time{}) }
	far := NewS3File("b", "k", 1, time.Time{}, "")
	o := &Object{}
	o.Set("left", file("d"))
	o.Set("right", []any{far, 1, "text", file("e")})
	item := []any{file("a"), nil, []any{file("b")}, map[string]any{"c": file("c")}, o, far}
	var got []string
	if err := EachLocal(item, func(p string) error { got = append(got, p); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	stop, seen := errors.New("stop"), 0
	if err := EachLocal(item, func(string) error { seen++; return stop }); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("%v after %d", err, seen)
	}
}
