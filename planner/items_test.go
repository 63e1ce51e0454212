package planner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// collect is items from to to-1, checked for their indices.
func collect(t interface{ Fatalf(string, ...any) }, it Items, from, to int) []any {
	var got []any
	err := it.Each(from, to, func(i int, v any) error {
		if i != from+len(got) {
			t.Fatalf("index %d, want %d", i, from+len(got))
		}
		got = append(got, v)
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return got
}

func all(t interface{ Fatalf(string, ...any) }, it Items) []any { return collect(t, it, 0, it.Len()) }

// texts is items as JSON: what they are to everybody else.
func texts(list []any) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(value.AppendItem(nil, v))
	}
	return out
}

// drawItems draws items of every kind, nested, with the list that they are.
func drawItems(t *rapid.T, depth int) (Items, []any) {
	kinds := []string{"range", "values", "files"}
	if depth > 0 {
		kinds = append(kinds, "matrix", "zip", "head", "batch", "only")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "range":
		r := rangeItems{from: rapid.IntRange(-5, 5).Draw(t, "from"), step: rapid.SampledFrom([]int{-3, 1, 7}).Draw(t, "step"), n: rapid.IntRange(0, 9).Draw(t, "n")}
		var list []any
		for i := range r.n {
			list = append(list, r.from+i*r.step)
		}
		return r, list
	case "values":
		p := newPacker("/p/")
		var list []any
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			v := rapid.SampledFrom([]any{nil, true, 5, 2.5, "x", "", "\xff\n\"", strings.Repeat("long ", 9000), []any{1, "a"}, value.NewObject([]string{"b", "a"}, []any{1, nil})}).Draw(t, "value")
			list = append(list, v)
			p.value(v)
		}
		return p.done(), list
	case "files":
		p := newPacker("/p/")
		var list []any
		for i := range rapid.IntRange(0, 6).Draw(t, "n") {
			path := rapid.SampledFrom([]string{"a/%d", "../x/\xfe%d.csv", "/abs/%d", "s3://b/k y/%d.parquet"}).Draw(t, "path")
			e := fileEntry{path: fmt.Appendf(nil, path, i), size: int64(i * 100), mtime: int64(i) * 1e9}
			if isS3(e.path) {
				e.etag = "tag"
			}
			list = append(list, e.item("/p/"))
			p.file(&e)
		}
		return p.done(), list
	case "matrix":
		a, al := drawItems(t, depth-1)
		b, bl := drawItems(t, depth-1)
		m, ok := newMatrix([]string{"a", "b"}, []Items{a, b})
		if !ok {
			t.Fatalf("matrix")
		}
		var list []any
		for _, x := range al {
			for _, y := range bl {
				list = append(list, value.NewObject([]string{"a", "b"}, []any{x, y}))
			}
		}
		return m, list
	case "zip":
		a, al := drawItems(t, depth-1)
		var list []any
		for i, x := range al {
			list = append(list, value.NewObject([]string{"i", "a"}, []any{i, x}))
		}
		return &zipItems{[]string{"i", "a"}, []Items{rangeItems{step: 1, n: a.Len()}, a}}, list
	case "head":
		a, al := drawItems(t, depth-1)
		n := rapid.IntRange(0, 8).Draw(t, "limit")
		h, err := head(a, n)
		if err != nil {
			t.Fatalf("%v", err)
		}
		return h, al[:min(n, len(al))]
	case "only":
		a, al := drawItems(t, depth-1)
		var index []int
		var list []any
		for i := range al {
			if rapid.Bool().Draw(t, "chosen") {
				index = append(index, i)
				list = append(list, al[i])
			}
		}
		o, err := choose(a, append(slices.Clone(index), index...))
		if err != nil {
			t.Fatalf("%v", err)
		}
		return o, list
	}
	a, al := drawItems(t, depth-1)
	count, size := rapid.IntRange(0, 3).Draw(t, "items"), int64(rapid.IntRange(0, 400).Draw(t, "bytes"))
	b, err := newBatch(a, count, size)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var list []any
	var batch []any
	sum := int64(0)
	for _, v := range al {
		if n := fileBytes(v); len(batch) > 0 && (count > 0 && len(batch) == count || size > 0 && sum+n > size) {
			list = append(list, batch)
			batch, sum = nil, 0
		}
		batch = append(batch, v)
		sum += fileBytes(v)
	}
	if batch != nil {
		list = append(list, batch)
	}
	return b, list
}

// TestItems checks every kind of items, nested, against plain lists: whole, in
// parts, and stored and loaded.
func TestItems(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		it, list := drawItems(t, 2)
		want := texts(list)
		check := func(it Items, what string) {
			if it.Len() != len(want) {
				t.Fatalf("%s: %d items, want %d", what, it.Len(), len(want))
			}
			if diff := cmp.Diff(want, texts(all(t, it))); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", what, diff)
			}
			from := rapid.IntRange(0, len(want)).Draw(t, "from")
			to := rapid.IntRange(from, len(want)).Draw(t, "to")
			if diff := cmp.Diff(want[from:to], texts(collect(t, it, from, to)), cmp.Transformer("nil", func(s []string) int { return len(s) })); diff != "" {
				t.Fatalf("%s, part (-want +got):\n%s", what, diff)
			}
			var bytes int64
			for _, v := range list {
				bytes += fileBytes(v)
			}
			if it.Bytes() != bytes {
				t.Fatalf("%s: %d bytes, want %d", what, it.Bytes(), bytes)
			}
			if it.Each(0, len(want)+1, nil) == nil {
				t.Fatalf("%s: reading behind the end is no error", what)
			}
		}
		check(it, "made")
		store := cloudtest.NewStore()
		ref, err := SaveItems(context.Background(), store, "items/f", it)
		if err != nil {
			t.Fatalf("%v", err)
		}
		loaded, err := LoadItems(context.Background(), store, "items/f", ref)
		if err != nil {
			t.Fatalf("%v", err)
		}
		check(loaded, "loaded")
		if loaded.Elements() != it.Elements() {
			t.Fatalf("%d elements, want %d", loaded.Elements(), it.Elements())
		}
		for i := range loaded.Len() {
			if IndexOf(loaded, i) != IndexOf(it, i) {
				t.Fatalf("task %d has another index", i)
			}
		}
		again, err := SaveItems(context.Background(), cloudtest.NewStore(), "x", loaded)
		if err != nil || !bytes.Equal(ref, again) {
			t.Fatalf("saved again: %s, %v; want %s", again, err, ref)
		}
	})
}

// bigListing is a listing of n files.
func bigListing(n int) *packed {
	p := newPacker("/data/")
	e := fileEntry{mtime: 1}
	for i := range n {
		e.path = fmt.Appendf(e.path[:0], "part-%08d-%08x.parquet", i, uint32(i)*2654435761)
		e.size = int64(i % 1000)
		p.file(&e)
	}
	return p.done()
}

func TestSaveLarge(t *testing.T) {
	t.Parallel()
	it := bigListing(200_000)
	store := cloudtest.NewStore()
	ref, err := SaveItems(t.Context(), store, "i", it)
	if err != nil {
		t.Fatal(err)
	}
	if len(ref) > 10_000 {
		t.Errorf("the reference has %d bytes", len(ref))
	}
	loaded, err := LoadItems(t.Context(), store, "i", ref)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts(all(t, it)), texts(all(t, loaded))); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
	var keys []string
	if err := store.List(t.Context(), "i/", func(o cloud.ObjectInfo) bool { keys = append(keys, o.Key); return true }); err != nil || len(keys) < 2 {
		t.Fatal(keys, err)
	}
	b, err := store.Get(t.Context(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	b[len(b)/2] ^= 1
	if err := store.Put(t.Context(), keys[0], b); err != nil {
		t.Fatal(err)
	}
	damaged, err := LoadItems(t.Context(), store, "i", ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := damaged.Each(0, damaged.Len(), func(int, any) error { return nil }); cloud.KindOf(err) != cloud.KindCorrupt {
		t.Errorf("a damaged chunk: %v", err)
	}
}

func TestLoadDamagedReferences(t *testing.T) {
	t.Parallel()
	for _, ref := range []string{``, `{}`, `{"kind":"range","n":-1}`, `{"kind":"packed","n":3}`, `{"kind":"zip","n":1}`, `{"kind":"head","n":5}`,
		`{"kind":"packed","n":3,"chunks":[{"n":1,"hash":"x"}]}`, `{"kind":"packed","n":1,"inline":"/////w=="}`,
		`{"kind":"only","n":1,"of":{"kind":"range","n":1},"numbers":"AQX="}`, `{"kind":"batch","n":1,"of":{"kind":"range","n":1}}`,
		`{"kind":"matrix","n":7,"names":["a"],"parts":[{"kind":"range","n":1,"step":1}]}`} {
		if it, err := LoadItems(t.Context(), cloudtest.NewStore(), "x", []byte(ref)); err == nil {
			t.Errorf("%s: no error, %d items", ref, it.Len())
		}
	}
}

// TestSorter sorts more than fits into one run.
func TestSorter(t *testing.T) {
	t.Parallel()
	const n = 150_000
	type entry struct {
		path string
		size int64
	}
	var want []entry
	for i := range n {
		want = append(want, entry{fmt.Sprintf("%08x-%s", uint32(i)*2654435761, strings.Repeat("x", 40)), int64(i*7919%1000 - 500)})
	}
	for _, tt := range []struct {
		by   string
		desc bool
		less func(a, b entry) bool
	}{
		{"name", false, func(a, b entry) bool { return a.path < b.path }},
		{"name", true, func(a, b entry) bool { return a.path > b.path }},
		{"size", false, func(a, b entry) bool { return a.size < b.size }},
		{"size", true, func(a, b entry) bool { return a.size > b.size }},
	} {
		t.Run(fmt.Sprint(tt.by, tt.desc), func(t *testing.T) {
			t.Parallel()
			want := slices.Clone(want)
			p := newPacker("/")
			s := &sorter{by: tt.by, desc: tt.desc, next: p}
			for _, w := range want {
				s.file(&fileEntry{path: []byte(w.path), size: w.size})
			}
			if len(s.runs) < 1 {
				t.Fatal("everything fitted into one run")
			}
			if err := s.drain(); err != nil {
				t.Fatal(err)
			}
			sort.SliceStable(want, func(i, j int) bool { return tt.less(want[i], want[j]) })
			i := 0
			err := p.done().each(0, n, func(_ int, e *fileEntry) error {
				if string(e.path) != want[i].path || e.size != want[i].size {
					return fmt.Errorf("item %d is %s, want %s", i, e.path, want[i].path)
				}
				i++
				return nil
			}, nil)
			if err != nil || i != n {
				t.Error(i, err)
			}
		})
	}
}

func TestSortValues(t *testing.T) {
	t.Parallel()
	p := newPacker("/")
	s := &sorter{by: "name", next: p}
	for _, v := range []any{"b", 10, "a", 9, -3, 2.5, 1 << 60, 1<<60 + 1, value.NewObject([]string{"k"}, []any{1}), "10"} {
		if err := s.value(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.drain(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(texts(all(t, p.done())), " ")
	if want := `-3 2.5 9 10 1152921504606846976 1152921504606846977 "10" "a" "b" {"k":1}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := (&sorter{by: "size"}).value(1); !errors.Is(err, errNotFiles) {
		t.Errorf("sorting numbers by size: %v", err)
	}
}

func TestRangeLen(t *testing.T) {
	t.Parallel()
	const big = int(^uint(0) >> 1)
	for _, tt := range []struct {
		from, to, step, want int
		ok                   bool
	}{
		{0, 5, 1, 5, true}, {0, 5, 2, 3, true}, {5, 0, -2, 3, true}, {5, 0, 1, 0, true}, {0, 5, -1, 0, true}, {3, 3, 1, 0, true},
		{0, maxItems, 1, maxItems, true}, {0, maxItems + 1, 1, maxItems + 1, false},
		{-big - 1, big, big, 3, true}, {big, -big - 1, -big - 1, 2, true}, {-big - 1, big, 1, 0, false},
	} {
		n, ok := rangeLen(tt.from, tt.to, tt.step)
		if ok != tt.ok || ok && n != tt.want {
			t.Errorf("rangeLen(%d, %d, %d) = %d, %v; want %d, %v", tt.from, tt.to, tt.step, n, ok, tt.want, tt.ok)
		}
	}
}

func TestWriteItemsJSON(t *testing.T) {
	t.Parallel()
	p := newPacker("/home/x y/")
	day := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC).UnixNano()
	for _, e := range []fileEntry{{path: []byte("d/a.b.csv"), size: 3, mtime: day}, {path: []byte("../\xff"), mtime: day},
		{path: []byte("s3://b/k/é \"q\""), size: 1, mtime: noTime, etag: "t"}} {
		p.file(&e)
	}
	p.value(value.NewObject([]string{"z", "a"}, []any{"\xfe\\udcfe", 1}))
	chosen, err := choose(p.done(), []int{0, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	chosen.(*onlyItems).index = []int{0, 1, 2, 3}
	var b bytes.Buffer
	if err := WriteItemsJSON(&b, "f", chosen); err != nil {
		t.Fatal(err)
	}
	want := `{"function":"f","index":0,"item":"d/a.b.csv","path":"d/a.b.csv","uri":"file:///home/x%20y/d/a.b.csv","name":"a.b.csv","stem":"a.b","ext":".csv","dir":"d","size":3,"modified":"2024-05-06T07:08:09Z","etag":""}
{"function":"f","index":1,"item":"../\udcff","path":"../\udcff","uri":"file:///home/%FF","name":"\udcff","stem":"\udcff","ext":"","dir":"..","size":0,"modified":"2024-05-06T07:08:09Z","etag":"","item_base64":"Li4v/w=="}
{"function":"f","index":2,"item":"s3://b/k/é \"q\"","path":"s3://b/k/é \"q\"","uri":"s3://b/k/é \"q\"","name":"é \"q\"","stem":"é \"q\"","ext":"","dir":"s3://b/k","size":1,"modified":null,"etag":"t","bucket":"b","key":"k/é \"q\""}
{"function":"f","index":3,"item":{"z":"\udcfe\\udcfe","a":1},"item_base64":"eyJ6Ijoi/lxcdWRjZmUiLCJhIjoxfQ=="}
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for line := range strings.Lines(b.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// TestMemory holds a million items of every computed and listed kind.
func TestMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	r := rangeItems{step: 1, n: 1_000_000}
	m, ok := newMatrix([]string{"a", "b"}, []Items{r, rangeItems{step: 1, n: 100}})
	if !ok {
		t.Fatal("no matrix")
	}
	listing := bigListing(1_000_000)
	n := 0
	count := func(int, any) error { n++; return nil }
	if err := listing.Each(0, 1_000_000, count); err != nil {
		t.Fatal(err)
	}
	if err := m.Each(50_000_000, 50_100_000, count); err != nil {
		t.Fatal(err)
	}
	if err := WriteItemsJSON(io.Discard, "f", r); err != nil {
		t.Fatal(err)
	}
	used := int64(heap()) - int64(before)
	runtime.KeepAlive(listing)
	runtime.KeepAlive(m)
	if n != 1_100_000 || used > 40<<20 {
		t.Errorf("%d items, %d MB on the heap", n, used>>20)
	}
}
