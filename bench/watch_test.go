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
	w := &watching{b: b, dir: b.TempDir()}
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

// watch does what a page does: it asks for the page and the grid, and follows.
func (w *watching) watch(ctx context.Context, run string, got *atomic.Int64) {
	for _, path := range []string{"/runs/" + run, "/api/runs/" + run + "/grid/work", "/runs/" + run + "/events"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
		if err != nil {
			w.b.Error(err)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			if ctx.Err() == nil {
				w.b.Error(err)
			}
			return
		}
		if resp.StatusCode != http.StatusOK {
			w.b.Errorf("%s: %s", path, resp.Status)
		}
		n, _ := io.Copy(io.Discard, resp.Body) // until the run, or the benchmark, ends
		got.Add(n)
		_ = resp.Body.Close()
	}
}

// BenchmarkWatchers is how much longer a run of 100,000 tasks takes while 200
// people watch it: processes, and calls of a Python function. Runs with and
// without watchers take turns. server-% is what the server took of all
// processors meanwhile; the rest of what makes it slower are the 200 clients,
// which are in this process.
func BenchmarkWatchers(b *testing.B) {
	for name, file := range map[string]string{"processes": "watched.yaml", "calls": "quick.yaml"} {
		b.Run(name, func(b *testing.B) {
			w := newWatching(b)
			w.run("quick.yaml", 0) // what is only done once
			var alone, watched, cpu time.Duration
			var sent int64
			for b.Loop() {
				d, _ := w.run(file, 0)
				alone += d
				before := w.cpu()
				d, n := w.run(file, 200)
				cpu += w.cpu() - before
				watched += d
				sent += n
			}
			b.ReportMetric(alone.Seconds()/float64(b.N), "alone-s")
			b.ReportMetric(watched.Seconds()/float64(b.N), "watched-s")
			b.ReportMetric((watched.Seconds()/alone.Seconds()-1)*100, "slower-%")
			b.ReportMetric(cpu.Seconds()/watched.Seconds()/float64(runtime.NumCPU())*100, "server-%")
			b.ReportMetric(float64(sent)/float64(b.N)/200/1024, "KiB/watcher")
		})
	}
}

// cpu is the processor time of the server until now; 0 where the system does
// not say.
func (w *watching) cpu() time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(w.server) + "/stat")
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
