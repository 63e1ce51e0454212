package main

import (
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const servedPipeline = `
name: shown
params:
  what: {type: string, default: "<script>alert(1)</script>"}
schedule: {cron: "0 3 1 1 *"}
functions:
  work:
    map: {items: ["<script>alert(2)</script>", "\u202egnp.exe", ok]}
    run: |
      printf '<script>alert(3)</script>\033]0;title\007\n'
      if [ "$COILED_JOBS_INDEX" = 1 ]; then echo "<img src=x onerror=alert(4)>" >&2; exit 9; fi
      printf '{"html": "<script>alert(5)</script>"}' > "$COILED_JOBS_RESULT"
`

// shown is a server with a run that has failed.
func shown(t *testing.T, args ...string) (s *served, run string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("runs on this machine need Linux or macOS")
	}
	return shownIn(t, "", args...)
}

// shownIn is shown with another store.
func shownIn(t *testing.T, store string, args ...string) (s *served, run string) {
	t.Helper()
	s = newServed(t, map[string]string{"p/shown.yaml": servedPipeline, "secret": "not for everybody"})
	s.store = cmp.Or(store, s.store)
	cmd := s.command("apply", "p/shown.yaml", "--json")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !asExit(err, &exit) || exit.ExitCode() != exitFailed {
		t.Fatalf("apply: %v", err)
	}
	var r struct{ Run string }
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	s.serve(append(args, "p")...)
	return s, r.Run
}

func asExit(err error, into **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError) //nolint:errorlint // os/exec returns it as it is
	*into = e
	return ok
}

// get asks without following redirections.
func (s *served) get(path string, headers ...string) (*http.Response, string) {
	return s.ask(http.MethodGet, path, nil, headers...)
}

func (s *served) ask(method, path string, form url.Values, headers ...string) (*http.Response, string) {
	s.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, s.base+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

// Names, items, logs and results that would do something if a page let them.
func TestServeShowsHostileTextHarmlessly(t *testing.T) {
	t.Parallel()
	s, run := shown(t)
	for _, path := range []string{"/runs", "/runs/" + run, "/runs/" + run + "/failures", "/runs/" + run + "/machines", "/runs/" + run + "/changes",
		"/runs/" + run + "/file", "/runs/" + run + "/tasks/work", "/runs/" + run + "/tasks/work?status=failed", "/runs/" + run + "/tasks/work/0",
		"/runs/" + run + "/tasks/work/1", "/schedules", `/runs?pipeline="><script>alert(6)</script>`, "/runs?status=<script>", "/nothing/<script>alert(7)</script>"} {
		resp, body := s.get((&url.URL{Path: strings.Split(path, "?")[0], RawQuery: url.PathEscape(strings.Join(strings.Split(path, "?")[1:], "?"))}).String())
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %s %s", path, resp.Status, resp.Header.Get("Content-Type"))
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for _, bad := range []string{"<script>", "<img", "onerror=alert(4)>", "\u202e", "\033", "ZgotmplZ", "style=", " onclick="} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page holds %q", path, bad)
			}
		}
	}
	if _, body := s.get("/runs/" + run + "/tasks/work/1"); !strings.Contains(body, "&lt;script&gt;alert(3)") || !strings.Contains(body, `\u202egnp.exe`) {
		t.Errorf("the task's page does not show its log and item:\n%s", body)
	}
	resp, body := s.get("/api/runs/" + run + "/logs/work/0")
	if resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(body, "<script>alert(3)</script>") {
		t.Errorf("log: %v %q", resp.Header, body)
	}
	if resp, _ := s.get("/api/runs/" + run + "/logs/work/0?download"); !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment; ") {
		t.Errorf("download: %v", resp.Header)
	}
}

// Paths that would leave the store, if they could.
func TestServePathsStayInTheStore(t *testing.T) {
	t.Parallel()
	s, run := shown(t)
	for _, path := range []string{
		"/static/..%2f..%2fgo.mod", "/static/%2e%2e/guard.go", "/static//etc/passwd", "/static/", "/runs/..%2f..%2fsecret", "/runs/%2e%2e%2fsecret",
		"/api/runs/..%2f..%2f..%2fsecret", "/api/runs/" + run + "%2f..%2f" + run, "/api/runs/" + run + "/logs/..%2f..%2fheader.json/0", "/api/runs/" + run + "/logs/work/-1",
		"/api/runs/" + run + "/logs/work/99999999999999999999", "/api/runs/" + run + "/grid/nothing", "/api/runs/" + run + "/results/..", "/runs/" + run + "/tasks/work/3",
		"/runs/" + run + "/tasks/%00", "/runs/%00", "/runs/a%0ab", "/runs/" + strings.Repeat("x", 5000), "/schedules/shown/00000000", "/schedules/..%2f..%2fx/y",
	} {
		resp, body := s.get(path)
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMovedPermanently && resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if strings.Contains(body, "not for everybody") || strings.Contains(body, "root:") || strings.Contains(body, `"token"`) {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestServeWithAToken(t *testing.T) {
	t.Parallel()
	const token = "correct horse battery"
	s, run := shown(t, "--token", token)
	if !strings.HasPrefix(s.page, "/login?token=") {
		t.Errorf("the address that was printed: %s", s.page)
	}
	for _, path := range []string{"/runs", "/api/runs", "/runs/" + run, "/runs/" + run + "/events", "/metrics", "/api/runs/" + run + "/logs/work/0"} {
		if resp, body := s.get(path); resp.StatusCode != http.StatusUnauthorized || strings.Contains(body, "shown") {
			t.Errorf("%s without the token: %s %s", path, resp.Status, body)
		}
	}
	if resp, body := s.get("/healthz"); resp.StatusCode != http.StatusOK || strings.Contains(body, run) {
		t.Errorf("healthz: %s %s", resp.Status, body)
	}
	bearer := []string{"Authorization", "Bearer " + token}
	if resp, body := s.get("/api/runs", bearer...); resp.StatusCode != http.StatusOK || !strings.Contains(body, run) {
		t.Errorf("with the token: %s %s", resp.Status, body)
	}
	if resp, body := s.get("/metrics", bearer...); !strings.Contains(body, `coiled_jobs_runs{pipeline="shown",status="failed"} 1`) ||
		!strings.Contains(body, `coiled_jobs_tasks{pipeline="shown",status="failed"} 1`) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("metrics: %s\n%s", resp.Header.Get("Content-Type"), body)
	}

	// A program with the token may act, without a browser that could be misled.
	if resp, body := s.ask(http.MethodPost, "/schedules/shown/pause", url.Values{}, bearer...); resp.StatusCode != http.StatusOK {
		t.Errorf("pause: %s %s", resp.Status, body)
	}
	if out, err := s.command("schedules", "--json", "p").Output(); err != nil || !strings.Contains(string(out), `"paused": true`) {
		t.Errorf("%v %s", err, out)
	}

	if resp, body := s.ask(http.MethodPost, "/runs/nothing/retry", url.Values{}, bearer...); resp.StatusCode != http.StatusNotFound || !strings.HasPrefix(body, `{"error":`) {
		t.Errorf("retry of nothing: %s %s", resp.Status, body)
	}

	// A person enters it once.
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	resp, err := client.Get(s.base + s.page)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.Request.URL.Path != "/runs" || strings.Contains(resp.Request.URL.RawQuery, "token") || !strings.Contains(string(page), run) {
		t.Errorf("%s %v\n%s", resp.Request.URL, err, page)
	}
}

var hiddenCsrf = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

func TestServeRefusesForgedActions(t *testing.T) {
	t.Parallel()
	s, run := shown(t)
	_, page := s.get("/runs/" + run)
	m := hiddenCsrf.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page has no value for its actions:\n%s", page)
	}
	retry := "/runs/" + run + "/retry"
	for _, c := range []struct {
		name    string
		form    url.Values
		headers []string
		want    int
	}{
		{"without the value", url.Values{}, nil, http.StatusForbidden},
		{"with a wrong value", url.Values{"csrf": {strings.Repeat("0", 64)}}, nil, http.StatusForbidden},
		{"from another site", url.Values{"csrf": {m[1]}}, []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		{"by another name", url.Values{"csrf": {m[1]}}, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"something else", url.Values{"csrf": {m[1]}}, []string{"Origin", s.base}, http.StatusSeeOther},
	} {
		if resp, body := s.ask(http.MethodPost, retry, c.form, c.headers...); resp.StatusCode != c.want {
			t.Errorf("%s: %s %s, want %d", c.name, resp.Status, body, c.want)
		}
	}
	for path, want := range map[string]int{"/runs/" + run + "/explode": http.StatusNotFound, "/runs/nothing-at-all/cancel": http.StatusNotFound,
		"/schedules/nothing/trigger": http.StatusNotFound, "/schedules/shown/explode": http.StatusNotFound} {
		if resp, _ := s.ask(http.MethodPost, path, url.Values{"csrf": {m[1]}}); resp.StatusCode != want {
			t.Errorf("POST %s: %s, want %d", path, resp.Status, want)
		}
	}
	// What cannot be done says why.
	if out, err := s.command("wait", run).CombinedOutput(); err == nil {
		t.Errorf("wait: %s", out)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "p", "shown.yaml"), []byte(strings.Replace(servedPipeline, "  work:", "  other:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if resp, body := s.ask(http.MethodPost, retry, url.Values{"csrf": {m[1]}}); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, "is not in") {
		t.Errorf("retry of another file: %s\n%s", resp.Status, body)
	}
}

// Each schedule of a pipeline starts it with its own parameters, and its ticks
// are told by its own clock.
func TestServeTriggersTheScheduleThatIsMeant(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("runs on this machine need Linux or macOS")
	}
	s := newServed(t, map[string]string{"p/two.yaml": `
name: two
params: {who: nobody}
schedule:
- {cron: "0 3 1 1 *", timezone: Asia/Tokyo, params: {who: first}}
- {cron: "0 4 1 1 *", timezone: America/New_York, params: {who: second}}
functions: {f: {run: 'echo ${{ params.who }} > "$COILED_JOBS_RESULT"'}}
`})
	if out, err := s.command("backfill", "p/two.yaml", "--from", "2024-01-01", "--to", "2024-01-01", "--schedule", "2").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s.serve("p")
	_, page := s.get("/schedules")
	if !strings.Contains(page, `data-wall="2024-01-01T04:00:00">Mon 1 Jan 2024, 04:00 EST</time>`) || !strings.Contains(page, "03:00 JST") {
		t.Errorf("the clocks of the schedules are not on the page:\n%s", page)
	}
	csrf := hiddenCsrf.FindStringSubmatch(page)
	ids := regexp.MustCompile(`name="schedule" value="([0-9a-f]+)"`).FindAllStringSubmatch(page, -1)
	if csrf == nil || len(ids) != 2 {
		t.Fatalf("%v %v", csrf, ids)
	}
	for i, want := range []string{"first", "second"} {
		resp, body := s.ask(http.MethodPost, "/schedules/two/trigger", url.Values{"csrf": {csrf[1]}, "schedule": {ids[i][1]}})
		run := strings.TrimPrefix(resp.Header.Get("Location"), "/runs/")
		if out, err := s.command("wait", run).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v %s", resp.Status, body, err, out)
		}
		if out, err := s.command("results", run, "f", "--format", "jsonl").Output(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v %s", want, err, out)
		}
	}
	if resp, _ := s.ask(http.MethodPost, "/schedules/two/trigger", url.Values{"csrf": {csrf[1]}, "schedule": {"00000000"}}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a schedule that is none: %s", resp.Status)
	}
}

// A file that goes away is shown as broken; the others go on, and it comes back.
func TestServeGoesOnWithoutAFile(t *testing.T) {
	t.Parallel()
	const text = "name: %s\nschedule: {cron: \"0 3 1 1 *\"}\nfunctions: {f: {run: echo}}\n"
	s := newServed(t, map[string]string{"a.yaml": fmt.Sprintf(text, "aaa"), "b.yaml": fmt.Sprintf(text, "bbb")})
	var exit *exec.ExitError
	if out, err := s.command("serve", "a.yaml", "c.yaml", "--listen", "127.0.0.1:0").CombinedOutput(); !asExit(err, &exit) || exit.ExitCode() != exitUsage || !strings.Contains(string(out), "c.yaml") {
		t.Errorf("a file that was never there: %v %s", err, out)
	}
	s.serve("a.yaml", "b.yaml", "--every", "1s")
	a := filepath.Join(s.dir, "a.yaml")
	shows := func(what string, broken bool) {
		t.Helper()
		page := ""
		for range 1000 {
			_, page = s.get("/schedules")
			if strings.Contains(page, "Broken: a.yaml") == broken && strings.Contains(page, `id="h-aaa-`) != broken && strings.Contains(page, `id="h-bbb-`) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("%s:\n%s", what, page)
	}
	shows("at first", false)
	if err := os.Rename(a, a+".bak"); err != nil {
		t.Fatal(err)
	}
	shows("it is gone", true)
	if err := os.Rename(a+".bak", a); err != nil {
		t.Fatal(err)
	}
	shows("it is back", false)
}

// The address bar may lead other names here: they are not this server's.
func TestServeKnowsItsNames(t *testing.T) {
	t.Parallel()
	s, _ := shown(t, "--host", "jobs.example")
	port := s.base[strings.LastIndex(s.base, ":"):]
	for host, want := range map[string]int{"localhost" + port: 200, "127.0.0.1" + port: 200, "jobs.example": 200, "evil.example" + port: http.StatusMisdirectedRequest} {
		req, err := http.NewRequest(http.MethodGet, s.base+"/runs", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", host, resp.Status, want)
		}
	}
}

// The page and all it needs fit a slow line, whatever the number of tasks.
func TestServeFirstViewIsSmall(t *testing.T) {
	t.Parallel()
	s, run := shown(t)
	size, paths, seen := 0, []string{"/runs/" + run, "/api/runs/" + run + "/grid/work", "/api/runs/" + run + "/timeline", "/runs/" + run + "/tasks/work"}, map[string]bool{}
	for len(paths) > 0 {
		path := paths[0]
		if paths = paths[1:]; seen[path] {
			continue
		}
		seen[path] = true
		_, plain := s.get(path)
		resp, packed := s.get(path, "Accept-Encoding", "gzip")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		size += len(packed)
		for _, m := range regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`).FindAllStringSubmatch(plain, -1) {
			paths = append(paths, m[1])
		}
		for _, m := range regexp.MustCompile(`from "\./([^"]+)"`).FindAllStringSubmatch(plain, -1) {
			paths = append(paths, path[:strings.LastIndex(path, "/")+1]+m[1])
		}
	}
	if len(seen) < 14 || size > 120_000 {
		t.Errorf("%d requests, %d bytes: %v", len(seen), size, fmt.Sprint(seen))
	}
}

// Runs that have ended are sent to a collector, once.
func TestServeTraces(t *testing.T) {
	t.Parallel()
	names := make(chan string, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var got struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []struct{ Name string } }
			}
		}
		if err := json.NewDecoder(z).Decode(&got); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		for _, rs := range got.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, span := range ss.Spans {
					names <- span.Name
				}
			}
		}
	}))
	defer collector.Close()
	s, run := shown(t, "--otlp", collector.URL)
	got := map[string]bool{}
	for len(got) < 8 {
		select {
		case name := <-names:
			got[name] = true
		case <-time.After(time.Minute):
			t.Fatalf("only these were sent: %v", got)
		}
	}
	for _, want := range []string{"shown", "work", "work/0", "work/1", "work/2", "work/1 attempt 1"} {
		if !got[want] {
			t.Errorf("no span %q among %v", want, got)
		}
	}
	mark := filepath.Join(s.store, "runs", run, "traced")
	for range 1000 {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.serve("--otlp", collector.URL) // another server knows that it was sent
	var list []struct{ Run string }
	if s.api("/api/runs", &list); len(list) != 1 {
		t.Errorf("%v", list)
	}
	select {
	case name := <-names:
		t.Errorf("%s was sent again", name)
	case <-time.After(500 * time.Millisecond):
	}
	for _, bad := range []string{"localhost:4318", "ftp://x", "http://"} {
		cmd := s.command("serve", "--listen", "127.0.0.1:0", "--otlp", bad)
		var exit *exec.ExitError
		if out, err := cmd.CombinedOutput(); !asExit(err, &exit) || exit.ExitCode() != exitUsage || !strings.Contains(string(out), "OTLP over HTTP") {
			t.Errorf("--otlp %s: %v %s", bad, err, out)
		}
	}
}

// With a store in a bucket the page shows and does the same.
func TestServeFromABucket(t *testing.T) {
	store, _ := bucketStore(t)
	s, run := shownIn(t, store)
	for path, want := range map[string]string{"/runs": run, "/runs/" + run: "1 failed", "/runs/" + run + "/failures": "img src=x", "/runs/" + run + "/tasks/work/1": "alert(3)",
		"/api/runs/" + run + "/grid/work": "sfs", "/api/runs/" + run + "/timeline": `"done"`, "/schedules": "0 3 1 1 *", "/metrics": "coiled_jobs_store_up 1"} {
		if resp, body := s.get(path); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %s, without %q\n%.2000s", path, resp.Status, want, body)
		}
	}
	_, page := s.get("/schedules")
	m := hiddenCsrf.FindStringSubmatch(page)
	if m == nil {
		t.Fatal("the page has no value for its actions")
	}
	for _, action := range []string{"pause", "resume"} {
		if resp, body := s.ask(http.MethodPost, "/schedules/shown/"+action, url.Values{"csrf": {m[1]}}); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: %s %s", action, resp.Status, body)
		}
		out, err := s.command("schedules", "--json", "p").Output()
		if paused := strings.Contains(string(out), `"paused": true`); err != nil || paused != (action == "pause") {
			t.Errorf("after %s: %v %s", action, err, out)
		}
	}
}
