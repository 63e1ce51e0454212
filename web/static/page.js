// What all pages share: times in the reader's zone, and parts that follow the server.

const clock = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const short = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const older = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** What the reader's clock shows at a moment. */
const wall = (at) => new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);

/** Shows the times below an element in the reader's zone. */
export function localTimes(root) {
  for (const t of root.querySelectorAll("time[datetime]")) {
    const at = new Date(t.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    if (t.classList.contains("zone")) { // by the clock of its schedule, and by the reader's where that is another
      if (t.dataset.wall === wall(at) || t.nextElementSibling?.classList.contains("here")) continue;
      const here = document.createElement("span");
      here.className = "here muted";
      here.textContent = ` (${(at.getSeconds() ? clock : short).format(at)} here)`;
      t.after(here);
      continue;
    }
    if (!t.title) t.title = t.textContent;
    t.textContent = (at.getFullYear() === new Date().getFullYear() ? clock : older).format(at);
  }
}

/** Puts rendered HTML in the place of what is inside an element; what has not changed stays, with focus and open parts. */
export function morph(element, html) {
  Idiomorph.morph(element, html, {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    callbacks: {
      // What the reader opened stays open.
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") && !(name === "title" && node.tagName === "TIME"),
    },
  });
  localTimes(element);
}

/** Follows the events of a page while it can be seen; on is called for each by its name. Returns a function that ends it. */
export function follow(url, on) {
  const state = document.getElementById("link-state");
  let source = null, ended = false, lost = 0;
  const say = (text) => { if (state) state.textContent = text; };
  const open = () => {
    if (source || ended || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("open", () => { if (lost) { lost = 0; say(""); on.again?.(); } });
    source.addEventListener("error", () => {
      lost++;
      say("the server does not answer; trying on");
      if (source?.readyState === EventSource.CLOSED) { source = null; setTimeout(open, Math.min(30000, 1000 * lost)); }
    });
    for (const name of Object.keys(on)) if (name !== "again") source.addEventListener(name, (e) => on[name](e.data));
    source.addEventListener("end", stop);
  };
  const close = () => { source?.close(); source = null; };
  const stop = () => { ended = true; close(); say(""); document.removeEventListener("visibilitychange", seen); };
  // Browsers allow few connections to a server: a page in the background needs none.
  const seen = () => { if (document.hidden) close(); else { if (!source && !ended) lost = lost || 1; open(); } };
  document.addEventListener("visibilitychange", seen);
  window.addEventListener("pagehide", close);
  open();
  return stop;
}

/** Asks for the inside of a page. */
export async function inside(url) {
  const answer = await fetch(url, { headers: { "X-Coiled-Jobs-Bare": "1" } });
  return { ok: answer.ok, html: await answer.text() };
}

/** The colour that a custom property stands for now. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** Calls fn when the colours change. */
export function onTheme(fn) {
  document.addEventListener("theme", fn);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fn);
}

/** A duration for people, as the server writes it. */
export function seconds(s) {
  if (!(s > 0)) return "0 s";
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 0.995) return `${s.toFixed(2)} s`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const n = Math.round(s), two = (x) => String(x).padStart(2, "0");
  if (n < 3600) return `${Math.floor(n / 60)}m ${two(n % 60)}s`;
  if (n < 86400) return `${Math.floor(n / 3600)}h ${two(Math.floor(n / 60) % 60)}m`;
  return `${Math.floor(n / 86400)}d ${Math.floor(n / 3600) % 24}h`;
}

export const count = (n) => n.toLocaleString("en-US");

localTimes(document);
