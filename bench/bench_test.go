package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// list asks the server for one page.
func list(t *testing.T, s *s3Server, query url.Values) listResult {
	t.Helper()
	query.Set("list-type", "2")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/bench?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var res listResult
	if err := xml.NewDecoder(resp.Body).Decode(&res); err != nil {
		t.Fatal(err)
	}
	return res
}

func serve(t *testing.T, l layout) *s3Server {
	t.Helper()
	s, err := startS3(l, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.stop() })
	return s
}

func TestPageByPage(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]layout{"folders": inFolders(2500), "one folder": inOneFolder(2500), "a page": inOneFolder(1000), "few": inFolders(3)} {
		s := serve(t, l)
		var out bytes.Buffer
		if err := pageByPage(t.Context(), s.url, &out); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for i := range l.n {
			fmt.Fprintln(&want, l.key(i))
		}
		if out.String() != want.String() {
			t.Errorf("%s: %d bytes of keys, want %d, in order", name, out.Len(), want.Len())
		}
	}
}

func TestServerLists(t *testing.T) {
	t.Parallel()
	s := serve(t, inFolders(500)) // five in each of 100 folders
	folders, token := 0, ""
	for page := 0; ; page++ {
		res := list(t, s, url.Values{"prefix": {"data/"}, "delimiter": {"/"}, "max-keys": {"30"}, "continuation-token": {token}})
		for _, p := range res.CommonPrefixes {
			if want := fmt.Sprintf("data/folder-%05d/", folders); p.Prefix != want {
				t.Fatalf("folder %q, want %q", p.Prefix, want)
			}
			folders++
		}
		if len(res.Contents) > 0 {
			t.Errorf("%d objects beside the folders", len(res.Contents))
		}
		if !res.IsTruncated {
			break
		}
		token = res.NextContinuationToken
	}
	if folders != 100 {
		t.Errorf("%d folders", folders)
	}
	res := list(t, s, url.Values{"prefix": {"data/folder-00007/"}, "delimiter": {"/"}, "start-after": {"data/folder-00007/part-00001.parquet"}})
	if len(res.Contents) != 3 || res.Contents[0].Key != "data/folder-00007/part-00002.parquet" || res.IsTruncated {
		t.Errorf("after the second of five: %+v", res)
	}
	if res := list(t, s, url.Values{"prefix": {"none/"}}); res.KeyCount != 0 || res.IsTruncated {
		t.Errorf("a prefix of nothing: %+v", res)
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.list); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.list, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tab := newTable(&out)
	tab.add(row{name: "fast", ours: time.Second, theirs: 3 * time.Second, ratio: 3, target: 2, rss: 30 << 20, maxRSS: 20, judge: true})
	tab.add(row{name: "slow", ours: 20 * time.Millisecond, maxTime: 15 * time.Millisecond, judge: true})
	tab.add(row{name: "small", ours: 20 * time.Millisecond, maxTime: 15 * time.Millisecond})
	tab.end()
	lines := strings.Split(out.String(), "\n")
	for i, want := range [][]string{1: {"3.00x", "2x met", "30.0 MiB", "20 MiB MISSED"}, 2: {"20 ms", "15 ms MISSED"}, 3: {"15 ms"}} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %q does not say %q", lines[i], w)
			}
		}
	}
	if strings.Contains(lines[3], "MISSED") {
		t.Errorf("judged at a small scale: %q", lines[3])
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-scale", "0"}, {"-rounds", "0"}, {"-jobs", "-1"}, {"-nonsense"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	for only, want := range map[string]bool{"": true, "S3": true, "glob, S3": true, "python": false} {
		if got := wanted(only, "4000 S3 objects"); got != want {
			t.Errorf("-only %q: %v", only, got)
		}
	}
}
