// The timeline: a row for each machine, what it ran and how busy it was.
import { colour, count, onTheme, seconds } from "./page.js";

const bytes = (base64) => Uint8Array.from(atob(base64 || ""), (c) => c.charCodeAt(0));

export class Timeline {
  constructor(root, on) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.on = on;
    this.colours();
    onTheme(() => { this.colours(); this.draw(); });
    new ResizeObserver(() => this.draw()).observe(root);
    this.canvas.addEventListener("pointermove", (e) => this.on.say(this.words(e)));
    this.canvas.addEventListener("pointerleave", () => this.on.say(""));
    this.canvas.addEventListener("click", (e) => { const b = this.bar(e); if (b) this.on.open(this.data.functions[b[1]], b[2]); });
  }

  colours() {
    this.palette = Array.from({ length: 8 }, (_, i) => colour(`--f${i}`));
    this.failed = colour("--failed");
    this.text = colour("--muted");
    this.line = colour("--line");
    this.life = colour("--card");
  }

  load(data) {
    this.data = data;
    for (const m of data.machines) { m.busy = bytes(m.busy); m.function = bytes(m.function); m.bad = bytes(m.bad); m.lanes = 0; }
    if (data.bars) { // few attempts: each is a bar, in the first lane that is free
      const ends = data.machines.map(() => []);
      data.bars.sort((a, b) => a[4] - b[4]);
      for (const b of data.bars) {
        const lanes = ends[b[0]];
        let lane = lanes.findIndex((end) => end <= b[4] + 1e-9);
        if (lane < 0) lane = lanes.push(0) - 1;
        lanes[lane] = b[4] + b[5];
        b.lane = lane;
      }
      data.machines.forEach((m, i) => { m.lanes = Math.max(1, ends[i].length); });
    }
    this.on.legend(data.functions.map((name, i) => [name, this.palette[i % 8]]));
    this.draw();
  }

  draw() {
    const d = this.data, w = this.root.clientWidth;
    if (!d || !w) return;
    const rows = d.machines.length, left = w < 500 ? 64 : 150, foot = 22;
    const flat = rows > 40 ? 8 : rows > 12 ? 16 : 34;
    let y = 8;
    this.place = d.machines.map((m) => {
      const h = d.bars ? Math.min(Math.max(m.lanes * (m.lanes > 16 ? 4 : 9), 16), 160) : flat;
      const at = { y, h };
      y += h + (rows > 40 ? 1 : 6);
      return at;
    });
    const height = y + foot, ratio = devicePixelRatio || 1, ctx = this.canvas.getContext("2d");
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${w}px`;
    this.canvas.style.height = `${height}px`;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    const right = w - 10, x = (t) => left + (right - left) * Math.min(Math.max(t / d.seconds, 0), 1);
    this.left = left;
    this.right = right;
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    const step = niceStep(d.seconds, (right - left) / 90);
    ctx.fillStyle = this.text;
    for (let t = 0; t <= d.seconds; t += step) {
      ctx.fillStyle = this.line;
      ctx.fillRect(x(t), 4, 1, y - 4);
      ctx.fillStyle = this.text;
      ctx.textAlign = t === 0 ? "left" : "center";
      if (x(t) < right - 14 || t === 0) ctx.fillText(seconds(t), x(t), y + 8);
    }
    ctx.textAlign = "left";
    d.machines.forEach((m, i) => {
      const { y: top, h } = this.place[i];
      if (h >= 12) {
        ctx.fillStyle = this.text;
        ctx.fillText(shorten(ctx, m.id || "this machine", left - 18), 10, top + Math.min(h / 2, 12));
      }
      ctx.fillStyle = this.life;
      ctx.fillRect(x(m.from), top, Math.max(1, x(m.to) - x(m.from)), h);
      if (d.bars) return;
      for (let s = 0; s < m.busy.length; s++) {
        if (!m.busy[s]) continue;
        const x0 = x(s * d.width), wide = Math.max(1, x((s + 1) * d.width) - x0 + 0.4), tall = Math.max(1, h * m.busy[s] / 255);
        ctx.fillStyle = this.palette[m.function[s] % 8];
        ctx.fillRect(x0, top + h - tall, wide, tall);
        if (m.bad[s]) { ctx.fillStyle = this.failed; ctx.fillRect(x0, top + h - Math.max(2, h * m.bad[s] / 255), wide, Math.max(2, h * m.bad[s] / 255)); }
      }
    });
    for (const b of d.bars || []) {
      const { y: top, h } = this.place[b[0]], lane = h / d.machines[b[0]].lanes;
      ctx.fillStyle = b[6] ? this.failed : this.palette[b[1] % 8];
      b.box = [x(b[4]), top + b.lane * lane, Math.max(1.5, x(b[4] + b[5]) - x(b[4]) - 0.5), Math.max(1, lane - 1)];
      ctx.fillRect(...b.box);
    }
  }

  spot(e) {
    const box = this.canvas.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  }

  bar(e) {
    const [px, py] = this.spot(e);
    return this.data?.bars?.findLast((b) => b.box && px >= b.box[0] - 1 && px <= b.box[0] + b.box[2] + 1 && py >= b.box[1] && py <= b.box[1] + b.box[3] + 1);
  }

  words(e) {
    const d = this.data, [px, py] = this.spot(e), i = this.place?.findIndex((p) => py >= p.y && py <= p.y + p.h) ?? -1;
    if (!d || i < 0) return "";
    const m = d.machines[i], t = (px - this.left) / (this.right - this.left) * d.seconds, b = this.bar(e);
    const name = m.id ? `${m.id}${m.type ? ` (${m.type}${m.zone ? `, ${m.zone}` : ""})` : ""}` : "this machine";
    if (b) return `${d.functions[b[1]]}/${b[2]}, attempt ${b[3]}: ${seconds(b[5])}${b[6] ? ", failed" : ""} · ${name}`;
    if (t < 0) return `${name}: ${count(m.attempts)} attempts, ${seconds(m.busy_seconds)} of work${m.cost_usd ? `, $${m.cost_usd.toFixed(4)}` : ""}`;
    const s = Math.floor(t / d.width), busy = m.busy[s] ?? 0;
    return `${name} · after ${seconds(t)}: ${busy ? `${d.functions[m.function[s]]}, ${Math.round(busy / 2.55)} % busy` : t > m.to ? "gone" : "idle"}`;
  }
}

/** A step of time that reads well. */
export function niceStep(length, parts) {
  const least = length / Math.max(1, parts);
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800].find((s) => s >= least) ?? length;
}

function shorten(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  // The end is what tells names of machines apart.
  while (text.length > 1 && ctx.measureText(`…${text}`).width > width) text = text.slice(1);
  return `…${text}`;
}
