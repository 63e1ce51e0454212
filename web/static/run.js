import { colour, count, follow, inside, localTimes, morph, onTheme } from "./page.js";
import { Grid, states } from "./grid.js";
import { Timeline } from "./timeline.js";
import { Panel } from "./panel.js";
import { progress } from "./charts.js";

const $ = (id) => document.getElementById(id);
const live = $("live"), run = live.dataset.run, api = `/api/runs/${encodeURIComponent(run)}`, base = `/runs/${encodeURIComponent(run)}`;
const panel = new Panel($("panel"), run);

// The grid: all of it once, then what changes.
const chosen = $("grid-function");
let version = -1, early = [], loading = 0, since = 0;
const grid = new Grid($("grid"), {
  open: (index) => panel.task(chosen.value, index),
  say: (text) => { $("grid-at").textContent = `${chosen.value} · ${text}`; },
  counts: legend,
});

async function loadGrid() {
  const fn = chosen.value, turn = ++loading;
  version = -1;
  early = [];
  const answer = await fetch(`${api}/grid/${encodeURIComponent(fn)}`);
  if (!answer.ok || turn !== loading) return;
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (turn !== loading) return;
  grid.load(bytes);
  version = Number(answer.headers.get("X-Version"));
  for (const change of early) take(change);
  early = [];
  if (version < since) loadGrid();
}

function take(change) {
  if (version < 0) { early.push(change); return; }
  const d = change.fn[chosen.value];
  if (!d || change.v <= version) return;
  version = change.v;
  grid.change(d.n, d.d);
}

let counted = [];
function legend(n) {
  counted = n;
  $("grid-legend").replaceChildren(...states.flatMap((s, i) => {
    if (!n[i]) return [];
    const item = document.createElement("button"), dot = document.createElement("i");
    dot.style.background = colour(`--${s}`);
    item.type = "button";
    item.title = `Show the ${s} ones in the table`;
    item.append(dot, `${s} ${count(n[i])}`);
    item.addEventListener("click", () => { results.load(`${base}/tasks/${encodeURIComponent(chosen.value)}?status=${s === "waiting" ? "pending" : s}`); $("h-results").scrollIntoView({ block: "start" }); });
    return [item];
  }));
}
onTheme(() => legend(counted));

function choose(fn) {
  chosen.value = fn;
  const where = `${base}/tasks/${encodeURIComponent(fn)}`;
  $("grid-text").href = where;
  $("grid").setAttribute("aria-label", `Tasks of ${fn}`);
  $("grid-at").textContent = "\u00a0";
  marked();
  loadGrid();
  results.load(where);
}

function marked() {
  for (const a of live.querySelectorAll("a[data-function]")) {
    if (a.dataset.function === chosen.value) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current");
  }
}

// A part of the page that is asked for by itself, and stays where it is when
// one turns its pages.
class Inset {
  constructor(root, body = root) {
    this.root = root;
    this.body = body;
    body.addEventListener("click", (e) => {
      const link = e.target.closest?.('a[rel="next"], a[rel="prev"]');
      if (!link || link.classList.contains("task") || e.metaKey || e.ctrlKey) return;
      e.preventDefault();
      this.load(link.getAttribute("href"));
    });
    const submit = (form) => {
      const fields = new FormData(form), go = form.querySelector("[data-go]")?.dataset.go;
      const where = go ? go + encodeURIComponent(fields.get("fn")) : form.getAttribute("action");
      fields.delete("fn");
      this.load(`${where}?${new URLSearchParams(fields)}`);
    };
    body.addEventListener("submit", (e) => { if (e.target.method === "get") { e.preventDefault(); submit(e.target); } });
    body.addEventListener("change", (e) => { if (e.target.form) submit(e.target.form); });
  }

  async load(url = this.root.dataset.src) {
    this.url = url;
    const { ok, html } = await inside(url);
    if (this.url !== url) return;
    if (!ok) { this.body.textContent = "This cannot be read now."; return; }
    morph(this.body, html);
  }
}

const results = new Inset($("results"));
const failures = new Inset($("failures"), $("failures").querySelector(".body"));
for (const id of ["changes", "file", "machines"]) {
  const details = $(id), inset = new Inset(details, details.querySelector(".body"));
  details.addEventListener("toggle", () => { if (details.open) inset.load(); });
}

// The timeline and the chart: again while the run goes on, but not often.
const timeline = new Timeline($("timeline"), {
  open: (fn, index) => panel.task(fn, index),
  say: (text) => { $("timeline-at").textContent = text || "\u00a0"; },
  legend: (list) => $("timeline-legend").replaceChildren(...list.map(([name, c]) => {
    const item = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = c;
    item.append(dot, name);
    return item;
  })),
});

let timeAt = 0;
async function loadTime() {
  timeAt = Date.now();
  const answer = await fetch(`${api}/timeline`);
  if (!answer.ok) return;
  const data = await answer.json();
  progress($("progress"), data);
  timeline.load(data);
}

/** Calls fn now, and then at most once in so many milliseconds. */
function paced(fn, every) {
  let last = 0, waiting = 0;
  return () => {
    const now = Date.now();
    if (waiting) return;
    if (now - last >= every) { last = now; fn(); return; }
    waiting = setTimeout(() => { waiting = 0; last = Date.now(); fn(); }, every - (now - last));
  };
}

let seenFailed = "", seenDone = "";
const renewFailures = paced(() => { $("failures").hidden = false; failures.load(); }, 5000);
const renewTime = paced(loadTime, 5000);
const renewResults = paced(() => { if (!$("results").contains(document.activeElement)) results.load(results.url); }, 5000);

function renew() {
  const title = $("run-title").dataset;
  if (title.failed !== seenFailed) { seenFailed = title.failed; if (seenFailed !== "0") renewFailures(); else $("failures").hidden = true; }
  if (live.dataset.open && Date.now() - timeAt > 20000) renewTime(); // time and cost go on also where no task ends for long
  if (title.done !== seenDone) { if (seenDone !== "") { renewTime(); renewResults(); } seenDone = title.done; }
}

chosen.addEventListener("change", () => choose(chosen.value));
$("grid-in").addEventListener("click", () => grid.zoom(1));
$("grid-out").addEventListener("click", () => grid.zoom(-1));
$("grid-fit").addEventListener("click", () => grid.fit());
$("grid-go").addEventListener("submit", (e) => { e.preventDefault(); panel.task(chosen.value, Number(new FormData(e.target).get("index"))); });
live.addEventListener("click", (e) => {
  const link = e.target.closest?.("a[data-function]");
  if (!link || e.metaKey || e.ctrlKey) return;
  e.preventDefault();
  choose(link.dataset.function);
  $("h-tasks").scrollIntoView({ block: "nearest" });
});

if (live.dataset.open) {
  follow(live.dataset.events, {
    live: (html) => { morph(live, html); marked(); renew(); },
    grid: (json) => take(JSON.parse(json)),
    regrid: loadGrid,
    // Changes come from this version on: what is older lacks some.
    hello: (v) => { since = Number(v); if (version >= 0 && version < since) loadGrid(); },
    again: loadGrid,
    end: () => { renewTime(); renewResults(); },
  });
}
localTimes(document);
renew();
choose(chosen.value);
loadTime();
panel.fromAddress();
