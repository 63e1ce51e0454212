import { colour, onTheme, seconds } from "./page.js";

const spans = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800, 1209600];

const axis = () => ({ stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", labelFont: "11px system-ui, sans-serif" });
const short = (n) => n >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : n >= 1e4 ? `${+(n / 1e3).toFixed(1)}k` : `${+n.toFixed(2)}`;

/** Draws again when the width or the colours change. */
function keep(root, make) {
  let plot = null, width = 0;
  const again = () => {
    width = root.clientWidth;
    plot?.destroy();
    plot = width > 50 ? make(width) : null;
  };
  if (!root.kept) {
    root.kept = true;
    new ResizeObserver(() => { if (Math.abs(root.clientWidth - width) > 2) root.again(); }).observe(root);
    onTheme(() => root.again());
  }
  root.again = again;
  root.drop?.();
  root.drop = () => plot?.destroy();
  again();
}

/** Tasks done, failed, and the cost, over time. */
export function progress(root, data) {
  const xs = [0, ...data.done.map((_, i) => Math.min((i + 1) * data.width, data.seconds))];
  const lines = [xs, [0, ...data.done], [0, ...data.failed]];
  if (data.cost) lines.push([0, ...data.cost]);
  keep(root, (width) => new uPlot({
    width, height: 190, legend: { show: false }, padding: [12, 12, 0, 0],
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: false }, y: { range: (_, lo, hi) => [0, Math.max(1, hi)] }, "$": { range: (_, lo, hi) => [0, hi || 0.01] } },
    axes: [
      { ...axis(), incrs: spans, values: (_, v) => v.map(seconds), size: 30 },
      { ...axis(), values: (_, v) => v.map((n) => Number.isInteger(n) ? short(n) : ""), size: 52, label: "attempts", labelSize: 18 },
      ...(data.cost ? [{ ...axis(), scale: "$", side: 1, grid: { show: false }, values: (_, v) => v.map((n) => `$${+n.toPrecision(3)}`), size: 58, label: "cost", labelSize: 18 }] : []),
    ],
    series: [
      {},
      { label: "done", stroke: colour("--succeeded"), width: 2, fill: colour("--succeeded").replace(/^rgb\((.*)\)$/, "rgba($1, 0.10)"), points: { show: false } },
      { label: "failed", stroke: colour("--failed"), width: 2, points: { show: false } },
      ...(data.cost ? [{ label: "cost", scale: "$", stroke: colour("--waiting"), width: 2, dash: [5, 4], points: { show: false } }] : []),
    ],
  }, lines, root));
}

/** How long the runs of a schedule took, with p50 and p95. */
export function durations(root) {
  const points = JSON.parse(root.dataset.points || "[]");
  if (!points.length) return;
  const p50 = Number(root.dataset.p50), p95 = Number(root.dataset.p95), xs = points.map((p) => p.t);
  const flat = (v) => points.map(() => v || null);
  keep(root, (width) => new uPlot({
    width, height: 230, legend: { show: false }, padding: [12, 12, 0, 0],
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (_, lo, hi) => [0, hi * 1.1 || 1] } },
    axes: [{ ...axis(), size: 40 }, { ...axis(), incrs: spans, values: (_, v) => v.map(seconds), size: 64 }],
    series: [
      {},
      { label: "succeeded", stroke: colour("--succeeded"), paths: () => null, points: { show: true, size: 8, fill: colour("--succeeded") } },
      { label: "other", stroke: colour("--failed"), paths: () => null, points: { show: true, size: 8, fill: colour("--failed") } },
      { label: "p50", stroke: colour("--accent"), width: 1.5, points: { show: false } },
      { label: "p95", stroke: colour("--waiting"), width: 1.5, dash: [5, 4], points: { show: false } },
    ],
  }, [xs, points.map((p) => p.ok ? p.s : null), points.map((p) => p.ok ? null : p.s), flat(p50), flat(p95)], root));
}
