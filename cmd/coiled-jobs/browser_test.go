package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

const browsedPipeline = `
name: nightly
description: what the browser is shown
params: {year: 2024}
schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}
functions:
  list:
    run: echo '["a"]' > "$COILED_JOBS_RESULT"
  clean:
    needs: list
    map: {items: ["<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>", two, three, four, five, six, seven, eight, nine, ten, eleven, twelve]}
    run: |
      echo "item ${{ item }}"
      printf '\033[31mred\033[0m <b>bold?</b>\n'
      until [ -e go ]; do sleep 0.05; done
      if [ "$COILED_JOBS_INDEX" = 3 ] && [ ! -e mended ]; then echo "KeyError: '<script>window.pwned=1</script>'" >&2; exit 3; fi
      echo "${{ item }}" > "$COILED_JOBS_RESULT"
    hardware: {threads_per_worker: 4}
  features:
    map: {from: clean}
    run: echo 1 > "$COILED_JOBS_RESULT"
  report:
    needs: [features, list]
    run: echo done
`

// TestBrowser drives the page in a real browser: a run is started, watched to
// its end, a failure opened, retried, a schedule paused.
func TestBrowser(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("runs on this machine need Linux or macOS")
	}
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	t.Parallel()
	s := newServed(t, map[string]string{"pipelines/nightly.yaml": browsedPipeline, "pipelines/broken.yaml": "name: broken\nfunctions:\n  a: {rnu: echo}\n"})
	s.serve("pipelines")
	b := newBrowser(t, s.base)
	pipelines := filepath.Join(s.dir, "pipelines")

	b.open("/")
	b.await("nothing is listed yet", `document.querySelector("h2")?.innerText === "No runs yet"`)
	b.picture("empty")

	// A broken file is shown as broken, the other can be started.
	b.open("/schedules")
	if text := b.text("main"); !strings.Contains(text, `unknown key "rnu" (did you mean "run"?)`) || !strings.Contains(text, "0 3 * * *") {
		t.Fatalf("schedules:\n%s", text)
	}
	b.do("run it now", chromedp.Click(`form[action="/schedules/nightly/trigger"] button`))
	b.await("its page is there", `location.pathname.startsWith("/runs/nightly-")`)
	eval[int](b, `window.here = 1`)
	b.await("tasks run", `document.querySelector("#run-status").innerText.includes("running") && /running [1-9]/.test(document.querySelector("#grid-legend").innerText)`)

	// The log of a task that runs follows it, as text.
	b.do("open a task", chromedp.Focus("#grid"), chromedp.KeyEvent("\r"))
	b.await("its log is live", `document.querySelector("#panel #log")?.innerText.includes("red <b>bold?</b>")`)
	b.look("task-live")
	b.do("close it", chromedp.KeyEvent("\x1b"))
	b.look("run-live")
	// No task ends for long; what it costs and how the machines are used goes on.
	const asked = `performance.getEntriesByType("resource").filter((r) => r.name.endsWith("/timeline")).length`
	before := eval[int](b, `(() => { const now = Date.now; Date.now = () => now() + 60000; return `+asked+`; })()`)
	b.await("the timeline is asked for again", fmt.Sprintf("%s > %d", asked, before))

	if err := os.WriteFile(filepath.Join(pipelines, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.await("it has ended", `document.querySelector("#run-status").innerText.includes("failed")`)
	if eval[int](b, `window.here ?? 0`) != 1 {
		t.Error("the page was loaded again to show the end of the run")
	}
	b.await("the grid shows the end", `/succeeded 11/.test(document.querySelector("#grid-legend").innerText) && /failed 1/.test(document.querySelector("#grid-legend").innerText)`)

	// The failure is explained.
	b.await("failures are grouped", `document.querySelector("#failures summary")?.innerText.includes("KeyError")`)
	b.do("open the failure", chromedp.Click("#failures a.task"))
	b.await("the task is shown", `document.querySelector("#panel[open] h1")?.innerText === "clean/3"`)
	if text := b.text("#panel"); !strings.Contains(text, "KeyError: '<script>") || !strings.Contains(text, "exit") {
		t.Errorf("the panel:\n%s", text)
	}
	b.look("failure")
	b.do("close it", chromedp.KeyEvent("\x1b"))
	b.await("it is closed", `!document.querySelector("#panel").open`)

	// By keyboard: to the failed task, and into it.
	b.do("n, Enter", chromedp.Focus("#grid"), chromedp.KeyEvent("n"), chromedp.KeyEvent("\r"))
	b.await("the keyboard opens it", `document.querySelector("#panel[open] h1")?.innerText === "clean/3"`)
	b.do("close it", chromedp.KeyEvent("\x1b"))
	for _, id := range []string{"changes", "file", "machines", "functions"} {
		eval[bool](b, fmt.Sprintf(`document.getElementById(%q).open = true`, id))
	}
	b.await("the file is shown", `document.querySelector("#file pre")?.innerText.includes("what the browser is shown")`)
	b.await("results are shown", `document.querySelector("#results table")?.innerText.includes("twelve")`)
	b.look("run-failed")

	back := eval[string](b, `location.pathname`)
	b.open(back + "/tasks/clean/3")
	b.look("task")
	b.open(back)

	// Mended, it is retried, and succeeds.
	if err := os.WriteFile(filepath.Join(pipelines, "mended"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.do("retry", chromedp.Click(`form[action$="/retry"] button`))
	b.await("it has succeeded", `document.querySelector("#run-status")?.innerText.includes("succeeded") && document.querySelector("#grid-legend").innerText.includes("succeeded 12")`)
	b.look("run-succeeded")

	b.open("/runs")
	b.await("it is listed", `document.querySelector("table.runs")?.innerText.includes("succeeded")`)
	b.look("runs")
	b.open("/runs?status=failed")
	if text := b.text("main"); !strings.Contains(text, "No run like that") {
		t.Errorf("runs that failed:\n%s", text)
	}

	// A schedule rests, and goes on.
	b.open("/schedules")
	b.do("pause", chromedp.Click(`form[action="/schedules/nightly/pause"] button`))
	b.await("it is paused", `document.querySelector(".schedule .badge")?.innerText.includes("paused")`)
	b.look("schedules")
	b.do("open it", chromedp.Click(".schedule h2 a"))
	b.await("coming ticks are shown", `document.querySelectorAll(".coming li").length === 20`)
	b.await("by the clock of the schedule, and by the reader's where that is another", `/03:00 CES?T/.test(document.querySelector(".coming li").innerText) &&
		(document.querySelector(".coming li .here") !== null) === (new Date(document.querySelector(".coming time").dateTime).getHours() !== 3)`)
	b.look("schedule")
	b.do("resume", chromedp.Click(`form[action="/schedules/nightly/resume"] button`))
	b.await("it is not paused", `location.pathname === "/schedules" && !document.querySelector(".schedule .badge.s-skipped")`)

	if eval[bool](b, `window.pwned === 1`) {
		t.Error("what a program printed was run")
	}
	b.quiet()
	var runs []struct {
		Run    string `json:"run"`
		Status string `json:"status"`
	}
	if s.api("/api/runs", &runs); len(runs) != 1 || runs[0].Status != "succeeded" {
		t.Errorf("runs: %+v", runs)
	}
}

// TestBrowserGridOfAMillion shows a million tasks, one of which has failed: it
// can be seen, found by keyboard, and opened by a click.
func TestBrowserGridOfAMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	t.Parallel()
	s := newServed(t, nil)
	s.serve()
	b := newBrowser(t, s.base)
	b.open("/runs")
	type facts struct {
		Per, Levels, Found, Clicked int
		Colour                      []int
		Millis                      float64
		Said                        string
		Counts                      []int
	}
	got := eval[facts](b, `(async () => {
		const { Grid } = await import(document.querySelector("script[type=module]").src.replace("runs.js", "grid.js"));
		const root = document.createElement("div");
		root.className = "grid";
		root.tabIndex = 0;
		root.innerHTML = '<div class="grid-space"><canvas></canvas></div>';
		document.getElementById("main").replaceChildren(root);
		const out = { Clicked: -1 };
		const grid = new Grid(root, { open: (i) => { out.Clicked = i; }, say: (s) => { out.Said = s; }, counts: (n) => { out.Counts = n; } });
		const cells = new Uint8Array(1_000_000).fill("s".charCodeAt(0)), bad = 765_432;
		cells[bad] = "f".charCodeAt(0);
		const begun = performance.now();
		grid.load(cells);
		grid.paint();
		out.Millis = performance.now() - begun;
		out.Per = grid.per;
		out.Levels = grid.levels.length;
		const cell = Math.floor(bad / grid.per), x = (cell % grid.cols) * grid.px + 1, y = Math.floor(cell / grid.cols) * grid.px + 1, ratio = grid.canvas.width / grid.w;
		out.Colour = [...grid.canvas.getContext("2d").getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data.slice(0, 3)];
		const box = root.getBoundingClientRect();
		root.dispatchEvent(new PointerEvent("click", { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
		root.focus();
		root.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
		root.dispatchEvent(new KeyboardEvent("keydown", { key: "n" }));
		out.Found = grid.cursor;
		for (let i = 0; i < 20; i++) root.dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
		root.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
		grid.change(1_000_001, [bad, 1, "s", 1_000_000, 1, "r"]);
		grid.paint();
		return out;
	})()`)
	if got.Per < 2 || got.Levels < 5 {
		t.Errorf("%d tasks in a cell, %d sizes", got.Per, got.Levels)
	}
	if c := got.Colour; len(c) != 3 || c[0] < 180 || c[1] > 120 || c[2] > 120 {
		t.Errorf("the failed task among a million is drawn in %v", c)
	}
	if got.Clicked != 765_432 || got.Found != 765_432 {
		t.Errorf("a click opens %d, n finds %d", got.Clicked, got.Found)
	}
	if got.Said != "task 765,433: succeeded" {
		t.Errorf("it says %q", got.Said)
	}
	if len(got.Counts) != 8 || got.Counts[3] != 1_000_000 || got.Counts[2] != 1 || got.Counts[5] != 0 {
		t.Errorf("counts %v", got.Counts)
	}
	t.Logf("a million tasks are drawn in %.0f ms", got.Millis)
	if got.Millis > 5000 {
		t.Errorf("drawing took %.0f ms", got.Millis)
	}
	b.picture("million")
	b.quiet()
}

// TestBrowserFleetOverTime draws a run on many machines and what it cost.
func TestBrowserFleetOverTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	t.Parallel()
	s := newServed(t, nil)
	s.serve()
	b := newBrowser(t, s.base)
	b.open("/runs/nothing")
	if text := b.text("main"); !strings.Contains(text, "There is no such page") {
		t.Errorf("a run that is none:\n%s", text)
	}
	b.mu.Lock()
	b.complaints = nil // that there is none is what it complains about
	b.mu.Unlock()
	b.look("error")
	b.open("/runs")
	got := eval[map[string]string](b, `(async () => {
		const at = (name) => document.querySelector("script[type=module]").src.replace("runs.js", name);
		await new Promise((ok, no) => { const s = document.createElement("script"); s.src = at("vendor/uPlot.iife.min.js"); s.onload = ok; s.onerror = no; document.head.append(s); });
		const css = document.createElement("link");
		css.rel = "stylesheet"; css.href = at("vendor/uPlot.min.css");
		document.head.append(css);
		const { Timeline } = await import(at("timeline.js")), { progress } = await import(at("charts.js"));
		document.getElementById("main").innerHTML = '<section class="card"><h2>Over time</h2><div id="progress" class="plot"></div><div id="timeline" class="timeline"><canvas></canvas></div><p class="legend small"></p></section>';
		const n = 240, width = 5, machines = [], code = (f) => btoa(String.fromCharCode(...Array.from({ length: n }, (_, i) => f(i))));
		for (let m = 0; m < 24; m++) {
			const from = m < 4 ? 0 : 20 + m, to = 200 + (m * 7) % 40;
			machines.push({ id: "i-0abc" + String(m).padStart(4, "0"), type: "m6i.xlarge", zone: "us-east-1" + "abc"[m % 3], price: 0.19, slots: 4, from: from * width, to: to * width, attempts: 40, failed: m % 5, busy_seconds: 300, cost_usd: 0.05,
				busy: code((i) => i > from && i < to - 10 ? 150 + (i * 37 + m * 11) % 105 : 0), function: code((i) => i < 100 ? 0 : i < 160 ? 1 : 2), bad: code((i) => m === 9 && i > 120 && i < 126 ? 120 : 0) });
		}
		const data = { start: "2026-01-01T00:00:00Z", seconds: n * width, width, functions: ["clean", "features", "report"], machines,
			done: Array.from({ length: n }, (_, i) => Math.round(9e5 / (1 + Math.exp(-(i - 110) / 22)))), failed: Array.from({ length: n }, (_, i) => i * 12), cost: Array.from({ length: n }, (_, i) => i * i * 0.0001) };
		const out = {};
		const timeline = new Timeline(document.getElementById("timeline"), { open() {}, say(text) { if (text) out.said = text; }, legend(list) { out.legend = list.map((l) => l[0]).join(" "); } });
		timeline.load(data);
		progress(document.getElementById("progress"), data);
		await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
		const box = timeline.canvas.getBoundingClientRect(), row = timeline.place[9];
		timeline.canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + timeline.left + (timeline.right - timeline.left) * 123 / n, clientY: box.top + row.y + 3, bubbles: true }));
		out.canvas = String(document.querySelectorAll("#progress canvas").length);
		return out;
	})()`)
	if got["legend"] != "clean features report" || got["canvas"] != "1" || !strings.Contains(got["said"], "i-0abc0009 (m6i.xlarge, us-east-1a)") || !strings.Contains(got["said"], "features") {
		t.Errorf("%v", got)
	}
	b.look("fleet")
	b.quiet()
}

// TestBrowserSignsIn enters the token, and not another.
func TestBrowserSignsIn(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	t.Parallel()
	s := newServed(t, nil)
	s.serve("--token", "correct horse battery")
	b := newBrowser(t, s.base)
	b.open("/schedules")
	b.await("it asks for the token", `location.pathname === "/login"`)
	b.look("login")
	b.do("a wrong one", chromedp.SendKeys("#token", "wrong"), chromedp.Click("form button"))
	b.await("it is refused", `document.querySelector(".wrong")?.innerText === "That is not it."`)
	b.mu.Lock()
	b.complaints = nil // that it is refused is what it complains about
	b.mu.Unlock()
	b.do("the right one", chromedp.SendKeys("#token", "correct horse battery"), chromedp.Click("form button"))
	b.await("it opens", `location.pathname === "/runs" && !location.search`)
	b.quiet()
}
