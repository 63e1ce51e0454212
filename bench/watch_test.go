package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watching is the program that was built for a benchmark, with a store.
type watching struct {
	b                  *testing.B
	dir, program, base string
	server             int // its process
	client             *http.Client
}

const watchedPipeline = `
name: watched
functions:
  work:
    map: {range: 100000}
    command: ["true"]
`

const quickPipeline = `
name: quick
functions:
  work:
    map: {range: 100000}
    python: w:f
`

func newWatching(b *testing.B) *watching {
	b.Helper()
	if runtime.GOOS == "windows" {
		b.Skip("runs on this machine need Linux or macOS")
	}
	// A browser keeps its connections.
	w := &watching{b: b, dir: b.TempDir(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}}
	w.program = filepath.Join(w.dir, "coiled-jobs")
	for name, text := range map[string]string{"watched.yaml": watchedPipeline, "quick.yaml": quickPipeline, "w.py": "def f(i): return i\n"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-o", w.program, "../cmd/coiled-jobs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	w.serve()
	return w
}

// serve starts a server that has read nothing yet.
func (w *watching) serve() {
	b := w.b
	b.Helper()
	serve := w.command("serve", "--listen", "127.0.0.1:0")
	stderr, err := serve.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	w.server = serve.Process.Pid
	b.Cleanup(func() { _ = serve.Process.Signal(os.Interrupt); _ = serve.Wait() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if m := regexp.MustCompile(`the page: (http://[^/]+)/`).FindStringSubmatch(lines.Text()); m != nil {
			w.base = m[1]
			go func() {
				for lines.Scan() { // so that it never waits for us
				}
			}()
			return
		}
	}
	b.Fatal("the server ended without a word about its page")
}

func (w *watching) command(args ...string) *exec.Cmd {
	cmd := exec.Command(w.program, append(args, "--store", filepath.Join(w.dir, "store"))...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(w.dir, "state"), "HOME="+w.dir, "COILED_JOBS_TOKEN=")
	return cmd
}

// run runs a pipeline with so many watchers and returns how long it took and
// how many bytes they were sent.
func (w *watching) run(file string, watchers int) (time.Duration, int64) {
	w.b.Helper()
	before := w.runs()
	begun := time.Now()
	cmd := w.command("apply", file, "--yes")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var all sync.WaitGroup
	var got atomic.Int64
	if watchers > 0 {
		run := ""
		for run == "" { // it is there in a moment
			time.Sleep(2 * time.Millisecond)
			for id := range w.runs() {
				if !before[id] {
					run = id
				}
			}
		}
		for range watchers {
			all.Go(func() { w.watch(ctx, run, &got) })
		}
	}
	if err := cmd.Wait(); err != nil {
		w.b.Fatalf("%v\n%s", err, out.String())
	}
	took := time.Since(begun)
	stop()
	all.Wait()
	return took, got.Load()
}

func (w *watching) runs() map[string]bool {
	entries, _ := os.ReadDir(filepath.Join(w.dir, "store", "index"))
	ids := map[string]bool{}
	for _, e := range entries { // a name is there a moment before its run
		if _, err := os.Stat(filepath.Join(w.dir, "store", "runs", e.Name(), "header.json")); err == nil {
			ids[e.Name()] = true
		}
	}
	return ids
}

// watch does what a page does: it asks for the page, the grid, what happened
// over time and a table of results, follows, and asks for the last two again
// every five seconds. Bodies are taken as they come: to unpack and to draw them
// is the work of other machines.
func (w *watching) watch(ctx context.Context, run string, got *atomic.Int64) {
	again := []string{"/api/runs/" + run + "/timeline", "/runs/" + run + "/tasks/work"}
	for _, path := range append([]string{"/runs/" + run, "/api/runs/" + run + "/grid/work"}, again...) {
		w.take(ctx, path, got)
	}
	var renewing sync.WaitGroup
	defer renewing.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	renewing.Go(func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				for _, path := range again {
					w.take(ctx, path, got)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	w.take(ctx, "/runs/"+run+"/events", got) // until the run, or the benchmark, ends
}

func (w *watching) take(ctx context.Context, path string, got *atomic.Int64) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
	if err != nil {
		w.b.Error(err)
		return
	}
	req.Header.Set("Accept-Encoding", "gzip") // set by hand it is left as it is
	if strings.Contains(path, "/tasks/") {
		req.Header.Set("X-Coiled-Jobs-Bare", "1") // as a part of the page
	}
	resp, err := w.client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			w.b.Error(err)
		}
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		w.b.Errorf("%s: %s", path, resp.Status)
	}
	n, _ := io.Copy(io.Discard, resp.Body)
	got.Add(n)
}

// BenchmarkWatchers is how much longer a run of 100,000 tasks takes while 200
// people watch it: processes, and calls of a Python function. Runs with and
// without watchers take turns; slower-% is the median of the pairs. server-% and
// clients-% are what the server and the 200 clients (this process) took
// meanwhile, of what the run had of all processors: on other machines the
// clients would take nothing of it.
func BenchmarkWatchers(b *testing.B) {
	for name, file := range map[string]string{"processes": "watched.yaml", "calls": "quick.yaml"} {
		b.Run(name, func(b *testing.B) {
			w := newWatching(b)
			w.run("quick.yaml", 1) // what is only done once
			var alone, watched, server, clients time.Duration
			var sent int64
			var ratios []float64
			for b.Loop() {
				one, _ := w.run(file, 0)
				alone += one
				s, c := cpu(strconv.Itoa(w.server)), cpu("self")
				d, n := w.run(file, 200)
				server, clients = server+cpu(strconv.Itoa(w.server))-s, clients+cpu("self")-c
				watched += d
				sent += n
				ratios = append(ratios, d.Seconds()/one.Seconds())
			}
			all := watched.Seconds() * float64(runtime.NumCPU()) / 100
			b.ReportMetric(alone.Seconds()/float64(b.N), "alone-s")
			b.ReportMetric(watched.Seconds()/float64(b.N), "watched-s")
			b.ReportMetric((median(ratios)-1)*100, "slower-%")
			b.ReportMetric(server.Seconds()/all, "server-%")
			b.ReportMetric(clients.Seconds()/all, "clients-%")
			b.ReportMetric(float64(sent)/float64(b.N)/200/1024, "KiB/watcher")
		})
	}
}

// cpu is the processor time of a process until now; 0 where the system does
// not say.
func cpu(process string) time.Duration {
	stat, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		return 0
	}
	// Behind the name, which ends with the last parenthesis: utime and stime are
	// the fields 14 and 15, in hundredths of a second.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// BenchmarkFirstView is how long the first look at a run of 100,000 tasks takes
// and what it weighs: the page, all its files, the grid. The server is new
// each time, so that it has read nothing.
func BenchmarkFirstView(b *testing.B) {
	w := newWatching(b)
	w.run("quick.yaml", 0)
	run := ""
	for id := range w.runs() {
		run = id
	}
	var page, whole time.Duration
	var size int64
	for b.Loop() {
		b.StopTimer()
		w.serve()
		b.StartTimer()
		begun := time.Now()
		html, n := w.get("/runs/" + run)
		page += time.Since(begun)
		size += n
		paths := []string{"/api/runs/" + run + "/grid/work"}
		for _, m := range regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`).FindAllStringSubmatch(html, -1) {
			paths = append(paths, m[1])
		}
		for seen := map[string]bool{}; len(paths) > 0; {
			path := paths[0]
			if paths = paths[1:]; seen[path] {
				continue
			}
			seen[path] = true
			text, n := w.get(path)
			size += n
			for _, m := range regexp.MustCompile(`from "\./([^"]+)"`).FindAllStringSubmatch(text, -1) {
				paths = append(paths, path[:strings.LastIndex(path, "/")+1]+m[1])
			}
		}
		whole += time.Since(begun)
	}
	b.ReportMetric(float64(page.Milliseconds())/float64(b.N), "page-ms")
	b.ReportMetric(float64(whole.Milliseconds())/float64(b.N), "whole-ms")
	b.ReportMetric(float64(size)/float64(b.N)/1000, "kB")
}

// get is a body, and how many bytes it was on the way.
func (w *watching) get(path string) (string, int64) {
	w.b.Helper()
	req, err := http.NewRequest(http.MethodGet, w.base+path, nil)
	if err != nil {
		w.b.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip") // set by hand it is left as it is
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.b.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	return unzipped(w.b, resp.Header.Get("Content-Encoding"), b), int64(len(b))
}

func unzipped(b *testing.B, encoding string, body []byte) string {
	b.Helper()
	if encoding != "gzip" {
		return string(body)
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	return string(out)
}
