package value

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sameObject = cmpopts.IgnoreUnexported(Object{})

func TestAppend(t *testing.T) {
	t.Parallel()
	type named string
	file := NewLocalFile("data/a b.csv", "/x/data/a b.csv", 3, time.Unix(1, 2))
	tests := []struct {
		v    any
		want string
	}{
		{nil, `null`},
		{true, `true`},
		{int8(-3), `-3`},
		{uint64(math.MaxUint64), `18446744073709551615`},
		{1.0, `1.0`},
		{1.10, `1.1`},
		{1e21, `1e+21`},
		{1e-7, `1e-7`},
		{math.NaN(), `null`},
		{"a\"\\\n\t\x01<&>\u2028é", `"a\"\\\n\t\u0001<&>` + "\u2028" + `é"`},
		{"a\xffb\xc3", `"a\udcffb\udcc3"`},
		{named("x"), `"x"`},
		{file, `"data/a b.csv"`},
		{(*File)(nil), `null`},
		{Number("18446744073709551615"), `18446744073709551615`},
		{[]string{"a"}, `["a"]`},
		{[]any{}, `[]`},
		{[]any(nil), `[]`},
		{[]map[string]any{{"b": 1, "a": nil}}, `[{"a":null,"b":1}]`},
		{map[string]string{"b": "1", "a": "2"}, `{"a":"2","b":"1"}`},
		{map[any][]any{1: {"x"}}, `{"1":["x"]}`},
		{NewObject([]string{"z", "a"}, []any{1, file}), `{"z":1,"a":"data/a b.csv"}`},
		{time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), `"2024-01-02T03:04:05Z"`},
		{90 * time.Second, `"1m30s"`},
	}
	for _, tt := range tests {
		if got := string(JSON(tt.v)); got != tt.want {
			t.Errorf("JSON(%#v) = %s, want %s", tt.v, got, tt.want)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want any
	}{
		{` [1, -2.5e1 , "a", null,true,false,{} ] `, []any{1, -25.0, "a", nil, true, false, map[string]any{}}},
		{`9223372036854775807`, math.MaxInt64},
		{`-9223372036854775808`, math.MinInt64},
		{`9223372036854775808`, Number("9223372036854775808")},
		{`[-18446744073709551616]`, []any{Number("-18446744073709551616")}},
		{`1.0`, 1.0},
		{`1e-999`, 0.0},
		{`"\ud83d\ude00\u00e9\/"`, "😀é/"},
		{`"\udcff\udc80"`, "\xff\x80"},
		{`"\udc7f\ud800x\ud800"`, "\uFFFD\uFFFDx\uFFFD"},
		{"\"raw\xff\"", "raw\xff"},
		{`{"a":{"b":[]},"a":2}`, map[string]any{"a": 2}},
	}
	for _, tt := range tests {
		got, err := Decode([]byte(tt.in))
		if err != nil {
			t.Errorf("Decode(%s): %v", tt.in, err)
		} else if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Decode(%s) = %#v, want %#v", tt.in, got, tt.want)
		}
		if err := Valid([]byte(tt.in)); err != nil {
			t.Errorf("Valid(%s): %v", tt.in, err)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{``, "not JSON at byte 1: it ends too early"},
		{`{"a":1} x`, "not JSON at byte 9: more text behind the document"},
		{`01`, "not JSON at byte 2: more text behind the document"},
		{`.5`, "not JSON at byte 1: unexpected '.'"},
		{`-`, "not JSON at byte 2: it ends too early"},
		{`1.`, "not JSON at byte 3: it ends too early"},
		{`1e`, "not JSON at byte 3: it ends too early"},
		{`1e999`, "not JSON at byte 1: the number is too large"},
		{"\"a\nb\"", "not JSON at byte 3: a control character in a string must be escaped"},
		{`"\x"`, `not JSON at byte 2: unknown escape \x`},
		{`"\u12"`, `not JSON at byte 2: \u needs four hexadecimal digits`},
		{`"abc`, "not JSON at byte 5: it ends too early"},
		{`"abc\`, "not JSON at byte 6: it ends too early"},
		{`[1,]`, "not JSON at byte 4: unexpected ']'"},
		{`{"a"}`, "not JSON at byte 5: unexpected '}'"},
		{`{1:2}`, "not JSON at byte 2: unexpected '1'"},
		{`nul`, "not JSON at byte 4: it ends too early"},
		{`NaN`, "not JSON at byte 1: unexpected 'N'"},
		{strings.Repeat("[", 1<<20), "not JSON at byte 1001: nested deeper than 1000 levels"},
	}
	for _, tt := range tests {
		if _, err := Decode([]byte(tt.in)); err == nil || err.Error() != tt.want {
			t.Errorf("Decode(%.40q) = %v, want %s", tt.in, err, tt.want)
		}
		if err := Valid([]byte(tt.in)); err == nil || err.Error() != tt.want {
			t.Errorf("Valid(%.40q) = %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestValidDoesNotAllocate(t *testing.T) {
	doc := []byte(`{"a": [1, 2.5, "x\ny", {"b": null}], "c": "\u00e9", "d": 1e5}`)
	if n := testing.AllocsPerRun(100, func() { _ = Valid(doc) }); n > 0 {
		t.Errorf("Valid allocates %v times", n)
	}
}

func TestItemRoundTrip(t *testing.T) {
	t.Parallel()
	items := []any{
		nil, 1, 1.5, "a\xff", []any{1, "x"},
		NewObject([]string{"z", "a"}, []any{1, NewObject([]string{}, []any{})}),
		NewLocalFile("a/b\xff.tar.gz", "/root/a/b\xff.tar.gz", 1<<40, time.Unix(12, 345).UTC()),
		NewLocalFile("x", "", 0, time.Time{}),
		NewS3File("bkt", "k/é.csv", 7, time.Unix(5, 0).UTC(), `"etag"`),
		NewObject([]string{"f", "n"}, []any{NewLocalFile("x", "/x", 1, time.Unix(1, 1).UTC()), 3}),
		[]any{NewLocalFile("x", "/x", 1, time.Unix(1, 1).UTC())},
	}
	for _, item := range items {
		b := AppendItem(nil, item)
		got, err := DecodeItem(b)
		if err != nil {
			t.Errorf("DecodeItem(%s): %v", b, err)
			continue
		}
		if diff := cmp.Diff(item, got, sameObject, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", b, diff)
		}
	}
	big := &Object{}
	for i := range 200 {
		big.Set(strings.Repeat("k", i%100+1), i) // each key twice
	}
	got, err := DecodeOrdered(AppendItem(nil, big))
	if diff := cmp.Diff(any(big), got, sameObject); err != nil || diff != "" {
		t.Errorf("large object: %v %s", err, diff)
	}
}

func TestObjectMap(t *testing.T) {
	t.Parallel()
	inner := NewObject([]string{"b"}, []any{1})
	o := NewObject([]string{"a", "l"}, []any{inner, []any{inner, 2}})
	want := map[string]any{"a": map[string]any{"b": 1}, "l": []any{map[string]any{"b": 1}, 2}}
	if diff := cmp.Diff(want, o.Map()); diff != "" {
		t.Error(diff)
	}
	o.Set("a", 3)
	if got := o.Map()["a"]; got != 3 {
		t.Errorf("after Set the map has %v", got)
	}
	if o.Vals[1].([]any)[0] != any(inner) {
		t.Error("Map changed the list of the object")
	}
}

func TestTextAndScalar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		v    any
		want string
	}{
		{nil, "null"}, {"a\xff\x00", "a\xff\x00"}, {1, "1"}, {1.5, "1.5"}, {3.0, "3"}, {true, "true"},
		{math.Inf(1), "+Inf"}, {[]any{1, "a"}, `[1,"a"]`}, {map[string]any{"b": 1}, `{"b":1}`},
		{NewS3File("b", "k", 1, time.Time{}, ""), "s3://b/k"}, {(*File)(nil), "null"},
		{time.Date(2024, 1, 2, 3, 4, 5, 6000, time.UTC), "2024-01-02T03:04:05.000006Z"},
		{json.Number("12"), "12"},
	} {
		if got := Text(tt.v); got != tt.want {
			t.Errorf("Text(%#v) = %q, want %q", tt.v, got, tt.want)
		}
	}
	for _, s := range []string{"010", "1.10", "2024_01", "1e5", "2024-01-01", ".5", "+1", "9223372036854775808", "0x10",
		"1.0", "-0", "NaN", "yes", "True", "1e21", "12:30", "-", "--1", "1 "} {
		if got := Scalar(s); got != s {
			t.Errorf("Scalar(%q) = %#v, want text", s, got)
		}
	}
	for s, want := range map[string]any{"1": 1, "-7": -7, "0": 0, "1.5": 1.5, "-0.25": -0.25, "1e+21": 1e21,
		"true": true, "false": false, "null": nil, "~": nil, "": nil, "9223372036854775807": math.MaxInt64} {
		if got := Scalar(s); got != want {
			t.Errorf("Scalar(%q) = %#v, want %#v", s, got, want)
		}
	}
}

func TestHasNUL(t *testing.T) {
	t.Parallel()
	for _, v := range []any{"a\x00", []any{1, "\x00"}, map[string]any{"\x00": 1}, map[string]any{"a": []any{"\x00"}},
		NewObject([]string{"a"}, []any{"\x00"}), NewObject([]string{"\x00"}, []any{1}), &File{Path: "\x00"}} {
		if !HasNUL(v) {
			t.Errorf("HasNUL(%#v) = false", v)
		}
	}
	for _, v := range []any{nil, 1, "a", []any{"b"}, (*File)(nil), (*Object)(nil), &File{Path: "a"}} {
		if HasNUL(v) {
			t.Errorf("HasNUL(%#v) = true", v)
		}
	}
}

// What is decoded encodes to something that decodes to the same, Valid agrees
// with Decode, and encoding/json agrees where it is not laxer or stricter.
func FuzzDecodeValue(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,-0,1e5,"\udcff\ud83d\ude00"]}`, `[`, "\"\xff\"", `{"\u0000file":"x","size":3}`,
		`{"\u0000file":1}`, `{"\u0000file":"p","bucket":"b","key":"k","modified":-5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if verr := Valid(b); (err == nil) != (verr == nil) {
			t.Fatalf("Decode says %v, Valid says %v", err, verr)
		}
		item, ierr := DecodeItem(b)
		if (err == nil) != (ierr == nil) {
			t.Fatalf("Decode says %v, DecodeItem says %v", err, ierr)
		}
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("encoding/json refuses %q", b)
		}
		out := JSON(v)
		if !json.Valid(out) {
			t.Fatalf("encoding/json refuses the output %q", out)
		}
		again, err := Decode(out)
		if err != nil || !bytes.Equal(out, JSON(again)) {
			t.Fatalf("%#v became %#v, %v", v, again, err)
		}
		stored := AppendItem(nil, item)
		item2, err := DecodeItem(stored)
		if err != nil || !bytes.Equal(stored, AppendItem(nil, item2)) {
			t.Fatalf("item %s became %s, %v", stored, AppendItem(nil, item2), err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	doc := []byte(`[` + strings.Repeat(`{"path":"data/file-0001.csv","rows":12345,"mean":3.25,"ok":true,"tags":["a","b"]},`, 2000) + `null]`)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := Decode(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValid(b *testing.B) {
	doc := []byte(`[` + strings.Repeat(`{"path":"data/file-0001.csv","rows":12345,"mean":3.25,"ok":true,"tags":["a","b"]},`, 2000) + `null]`)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if err := Valid(doc); err != nil {
			b.Fatal(err)
		}
	}
}
