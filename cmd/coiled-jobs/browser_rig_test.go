package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium with one tab. What pages complain about is collected.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string
	pics string // where screenshots go

	mu         sync.Mutex
	complaints []string
}

// findBrowser is the program to drive; "" if this machine has none.
func findBrowser() string {
	for _, name := range []string{os.Getenv("CHROME_BIN"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	path := findBrowser()
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no Chromium on this machine, and CI must have one; CHROME_BIN names another place")
		}
		t.Skip("there is no Chromium on this machine; CHROME_BIN names another place")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(time.Minute), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b := &browser{t: t, ctx: ctx, base: base, pics: t.ArtifactDir()}
	err := chromedp.Listen(ctx, func(e any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case *cdpruntime.EventExceptionThrown:
			b.complaints = append(b.complaints, fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception))
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError {
				b.complaints = append(b.complaints, fmt.Sprint(e.Entry.Text, " ", e.Entry.URL))
			}
		}
	})
	if err == nil {
		_, err = chromedp.Call(ctx, cdplog.Enable, cdp.Empty{})
	}
	if err == nil {
		_, err = chromedp.Call(ctx, cdpruntime.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return b
}

// patience is more than anything that is done in the browser takes, even where
// many tests share a processor.
const patience = time.Minute

// do acts in the browser.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.picture("stuck")
		b.t.Fatalf("%s: %v; on the page:\n%s", what, err, b.text("body"))
	}
}

// text is what can be read in an element now.
func (b *browser) text(selector string) string {
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	s, _ := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
	return s
}

// eval is the value of an expression in the page of a browser.
func eval[T any](b *browser, expr string) T {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expr, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.200s: %v", expr, err)
	}
	return v
}

// await waits until an expression holds in the page, also in the next one.
func (b *browser) await(what, expr string) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		// An error is a page that is just going, or has not come.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expr+")")); err == nil && ok {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			b.picture("stuck")
			b.quiet()
			b.t.Fatalf("%s: not after %s; on the page:\n%s", what, patience, b.text("body"))
		}
	}
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.do("open "+path, chromedp.Navigate(b.base+path), chromedp.WaitReady("body"))
}

// picture writes a screenshot for people to look at.
func (b *browser) picture(name string) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	// From the top, unless a task is shown beside the page.
	_, _ = chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](`document.querySelector("dialog[open]") ? undefined : window.scrollTo(0, 0); undefined`))
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Errorf("screenshot %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(b.pics, name+".png"), png, 0o600); err != nil {
		b.t.Error(err)
	}
}

// look shows the page in light and dark, on a desk and on a phone: it takes
// pictures, asks axe-core about each, and checks that nothing sticks out.
func (b *browser) look(name string) {
	b.t.Helper()
	axe, err := os.ReadFile(filepath.Join("testdata", "axe", "axe.min.js"))
	if err != nil {
		b.t.Fatal(err)
	}
	eval[chromedp.Void](b, string(axe)+"\n;undefined")
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"desk", 1280, 900}, {"phone", 390, 844}} {
		for _, theme := range []string{"light", "dark"} {
			b.do("resize", chromedp.EmulateViewport(size.width, size.height))
			eval[chromedp.Void](b, fmt.Sprintf(`(async () => { document.documentElement.dataset.theme = %q; document.dispatchEvent(new Event("theme"));
				await new Promise(r => setTimeout(r, 150)); })()`, theme))
			b.picture(name + "-" + size.name + "-" + theme)
			found := eval[[]string](b, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.filter(v => v.impact === "serious" || v.impact === "critical")
				.map(v => v.id + ": " + v.help + " " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(" | ")))`)
			for _, f := range found {
				b.t.Errorf("%s, %s, %s: %s", name, size.name, theme, f)
			}
			if wide := eval[float64](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); wide > 0 {
				b.t.Errorf("%s, %s: the page is %v pixels wider than the screen", name, size.name, wide)
			}
		}
	}
	// On the smallest screen that WCAG names nothing sticks out either.
	b.do("resize", chromedp.EmulateViewport(320, 640))
	b.await(name+" fits", "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
	b.do("resize", chromedp.EmulateViewport(1280, 900))
	eval[chromedp.Void](b, `delete document.documentElement.dataset.theme; undefined`)
}

// quiet fails the test if a page complained: an error in a script, or
// something that its policy forbids.
func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Errorf("the page complains: %s", c)
	}
	b.complaints = nil
}

// served is the real program that serves a page.
type served struct {
	t                   *testing.T
	dir, program, store string
	base                string
	page                string // the address it printed
}

// program is this test as the program, in a folder of its own.
func newServed(t *testing.T, files map[string]string) *served {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &served{t: t, dir: dir, program: filepath.Join(dir, "coiled-jobs"), store: filepath.Join(dir, "store")}
	if err := os.Symlink(exe, s.program); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *served) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append(args, "--store", s.store)...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(s.dir, "state"), "HOME="+s.dir, "COILED_JOBS_TOKEN=")
	return cmd
}

// serve starts the server and waits for its address.
func (s *served) serve(args ...string) {
	s.t.Helper()
	cmd := s.command(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	address := regexp.MustCompile(`the page: (http://[^/]+)(/\S*)`)
	for lines.Scan() {
		if m := address.FindStringSubmatch(lines.Text()); m != nil {
			s.base, s.page = m[1], m[2]
			go func() {
				for lines.Scan() { // so that it never waits for us
				}
			}()
			return
		}
	}
	s.t.Fatal("the server ended without a word about its page")
}

// api asks the server for JSON.
func (s *served) api(path string, v any) {
	s.t.Helper()
	resp, err := http.Get(s.base + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
}
