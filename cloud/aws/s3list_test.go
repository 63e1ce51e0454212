package aws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// fakeBucket answers like S3: keys in order, pages of a size, folders on
// request.
type fakeBucket struct {
	keys     []string // sorted
	pageSize int
	pages    atomic.Int64
	fail     func(q pageQuery) error
}

func newFakeBucket(keys []string, pageSize int) *fakeBucket {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return &fakeBucket{keys: slices.Compact(keys), pageSize: pageSize}
}

func (b *fakeBucket) page(_ context.Context, q pageQuery) (*page, error) {
	b.pages.Add(1)
	if b.fail != nil {
		if err := b.fail(q); err != nil {
			return nil, err
		}
	}
	i := sort.SearchStrings(b.keys, max(q.prefix, q.after))
	if q.token != "" {
		i, _ = strconv.Atoi(q.token)
	} else if i < len(b.keys) && b.keys[i] == q.after {
		i++
	}
	p := &page{}
	for n := 0; i < len(b.keys) && strings.HasPrefix(b.keys[i], q.prefix); n++ {
		if n == b.pageSize {
			p.token = strconv.Itoa(i)
			break
		}
		key := b.keys[i]
		if slash := strings.IndexByte(key[len(q.prefix):], '/'); q.folders && slash >= 0 {
			folder := key[:len(q.prefix)+slash+1]
			p.folders = append(p.folders, folder)
			for i < len(b.keys) && strings.HasPrefix(b.keys[i], folder) {
				i++
			}
			continue
		}
		p.objects = append(p.objects, cloud.S3Object{Key: key, Size: int64(len(key))})
		i++
	}
	return p, nil
}

func listKeys(b *fakeBucket, q cloud.S3Query) ([]string, error) {
	var got []string
	err := list(context.Background(), q, b.page, func(o cloud.S3Object) error {
		got = append(got, o.Key)
		return nil
	})
	return got, err
}

// everything is a query for all keys below a prefix.
func everything(prefix string) cloud.S3Query {
	return cloud.S3Query{Roots: []cloud.S3Root{{Prefix: prefix}}, Match: func(string) bool { return true }}
}

func TestListShapes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func(i int) string{
		"numbers":          func(i int) string { return fmt.Sprintf("data/part-%07d.parquet", i) },
		"numbers unpadded": func(i int) string { return fmt.Sprintf("data/%d", i) },
		"hashes":           func(int) string { return fmt.Sprintf("data/%016x", rnd.Uint64()) },
		"capital hashes":   func(int) string { return fmt.Sprintf("data/%016X.json", rnd.Uint64()) },
		"words":            func(int) string { return fmt.Sprintf("data/%s", strconv.FormatUint(rnd.Uint64(), 36)) },
		"times": func(i int) string {
			return fmt.Sprintf("data/2024-%02d-%02dT%02d:%02d.csv", i/40000+1, i/1440%28+1, i/60%24, i%60)
		},
		"folders":           func(i int) string { return fmt.Sprintf("data/f%03d/%05d.csv", i%100, i/100) },
		"a folder for each": func(i int) string { return fmt.Sprintf("data/id=%06d/x", i) },
		"characters beyond": func(i int) string { return fmt.Sprintf("data/é %c/%d", 'а'+rune(i%30), i) },
		"no digits":         func(i int) string { return "data/" + strings.Repeat("-", i%2000) + strings.Repeat("_", i/2000) },
		"one huge, tiny ones": func(i int) string {
			if i%100 == 0 {
				return fmt.Sprintf("data/tiny-%d/x", i)
			}
			return fmt.Sprintf("data/huge/%06d", i)
		},
	}
	for name, key := range shapes {
		keys := make([]string, 20000)
		for i := range keys {
			keys[i] = key(i)
		}
		keys = append(keys, "data", "data.csv", "data/", "data0", "date", "c/x")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFakeBucket(keys, 100)
			got, err := listKeys(b, everything("data/"))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, k := range b.keys {
				if strings.HasPrefix(k, "data/") {
					want = append(want, k)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d keys, want %d", len(got), len(want))
			}
			// Guesses may cost something, but not many times what must be read.
			if n, most := int(b.pages.Load()), 5*len(want)/100+3*maxActive; n > most {
				t.Errorf("%d pages for %d keys, want at most %d", n, len(want), most)
			}
		})
	}
}

func TestListIsTheSequentialOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(
			rapid.StringMatching(`[ab./\-0-3é+% \n]{1,6}`),
			rapid.StringMatching(`(a|b|a\.|a0)/([0-9]{1,3}|[a-c]{1,2}/[0-9]{1,2})`),
			rapid.StringMatching(`x[0-9]{4}`),
		)
		b := newFakeBucket(rapid.SliceOfN(key, 0, 400).Draw(t, "keys"), rapid.IntRange(1, 20).Draw(t, "page size"))
		if rapid.Bool().Draw(t, "flat") {
			var more []string
			for i := range rapid.IntRange(1, 3000).Draw(t, "count") {
				more = append(more, fmt.Sprintf("x%04d", i))
			}
			b = newFakeBucket(append(b.keys, more...), b.pageSize)
		}
		pattern := rapid.SampledFrom([]string{"*", "a*", "[ab]/*", "x*", "*/*", "*/*/*", "x0*"}).Draw(t, "pattern")
		prefix := pattern[:strings.IndexAny(pattern, "*[")]
		q := cloud.S3Query{Roots: []cloud.S3Root{{Prefix: prefix}}}
		q.Match = func(key string) bool { ok, _ := path.Match(pattern, key); return ok }
		depth := strings.Count(pattern, "/")
		q.Folder = func(folder string) cloud.FolderMatch {
			n := strings.Count(folder, "/")
			if n > depth {
				return cloud.FolderNone
			}
			if ok, _ := path.Match(strings.Join(strings.Split(pattern, "/")[:n], "/")+"/", folder); !ok {
				return cloud.FolderNone
			}
			return rapid.SampledFrom([]cloud.FolderMatch{cloud.FolderAll, cloud.FolderSome}).Example(n)
		}
		var want []string
		for _, k := range b.keys {
			if q.Match(k) {
				want = append(want, k)
			}
		}
		got, err := listKeys(b, q)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("pattern %q: error %v\nwant %q\ngot  %q", pattern, err, want, got)
		}
	})
}

func TestListRoots(t *testing.T) {
	t.Parallel()
	b := newFakeBucket([]string{"a", "a/1", "a/2", "ab", "abc", "b/1", "c/1", "c/2"}, 2)
	q := everything("")
	q.Roots = []cloud.S3Root{{Prefix: "a", Exact: true}, {Prefix: "abc", Exact: true}, {Prefix: "c/"}, {Prefix: "zz", Exact: true}}
	got, err := listKeys(b, q)
	if want := []string{"a", "abc", "c/1", "c/2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestListSkipsWhatCannotMatch(t *testing.T) {
	t.Parallel()
	var keys []string
	for station := range 10 {
		for month := range 48 {
			for i := range 50 {
				keys = append(keys, fmt.Sprintf("data/s%d/%d-%02d/%d.parquet", station, 2020+month/12, month%12+1, i))
			}
		}
	}
	b := newFakeBucket(keys, 100)
	segs := strings.Split("data/*/2023-01/*.parquet", "/")
	q := everything("data/")
	q.Match = func(key string) bool { ok, _ := path.Match(strings.Join(segs, "/"), key); return ok }
	q.Folder = func(folder string) cloud.FolderMatch {
		n := strings.Count(folder, "/")
		if n >= len(segs) {
			return cloud.FolderNone
		}
		ok, _ := path.Match(strings.Join(segs[:n], "/")+"/", folder)
		switch {
		case !ok:
			return cloud.FolderNone
		case n < 3:
			return cloud.FolderSome
		}
		return cloud.FolderAll
	}
	got, err := listKeys(b, q)
	if err != nil || len(got) != 500 {
		t.Fatalf("%d keys, %v", len(got), err)
	}
	// One page for the stations, one for the months of each, one for each month
	// that matches: not the 240 pages of everything.
	if n := b.pages.Load(); n != 21 {
		t.Errorf("%d pages, want 21", n)
	}
}

func TestListBoundsWhatWaits(t *testing.T) {
	t.Parallel()
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%06d", i)
	}
	b := newFakeBucket(keys, 100)
	var matched, handed, most atomic.Int64
	q := everything("")
	q.Match = func(string) bool {
		most.Store(max(most.Load(), matched.Add(1)-handed.Load()))
		return true
	}
	err := list(t.Context(), q, b.page, func(cloud.S3Object) error {
		handed.Add(1)
		return nil
	})
	if err != nil || handed.Load() != int64(len(keys)) {
		t.Fatalf("%d keys, %v", handed.Load(), err)
	}
	if limit := int64(100 * (maxBuffered + maxActive)); most.Load() > limit {
		t.Errorf("%d objects were ahead of the caller, want at most %d", most.Load(), limit)
	}
}

func TestListErrors(t *testing.T) {
	t.Parallel()
	keys := make([]string, 5000)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%06d", i)
	}
	t.Run("of the caller", func(t *testing.T) {
		t.Parallel()
		stop := errors.New("stop")
		n := 0
		err := list(t.Context(), everything(""), newFakeBucket(keys, 100).page, func(cloud.S3Object) error {
			if n++; n == 7 {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || n != 7 {
			t.Errorf("got %v after %d objects", err, n)
		}
	})
	t.Run("of a page", func(t *testing.T) {
		t.Parallel()
		b := newFakeBucket(keys, 100)
		bad := errors.New("bad page")
		b.fail = func(pageQuery) error {
			if b.pages.Load() > 10 {
				return bad
			}
			return nil
		}
		if _, err := listKeys(b, everything("")); !errors.Is(err, bad) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of the context", func(t *testing.T) {
		t.Parallel()
		cause := errors.New("cancelled by a test")
		ctx, cancel := context.WithCancelCause(t.Context())
		err := list(ctx, everything(""), newFakeBucket(keys, 100).page, func(o cloud.S3Object) error {
			if o.Key == "k000150" {
				cancel(cause)
			}
			return nil
		})
		if !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
}
