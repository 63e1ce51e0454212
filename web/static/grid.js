// The grid of tasks: a million of them on one canvas. A task is a byte; what is
// too small to be seen is drawn together, and what failed is never lost in it.
import { colour, count, onTheme } from "./page.js";

export const states = ["pending", "waiting", "running", "succeeded", "cached", "failed", "skipped", "cancelled"];
const codes = { p: 0, w: 1, r: 2, s: 3, c: 4, f: 5, k: 6, x: 7 };
const byByte = new Uint8Array(256);
for (const [letter, code] of Object.entries(codes)) byByte[letter.charCodeAt(0)] = code;
const sizes = [3, 4, 6, 8, 10, 12, 16, 20, 24];
const failed = codes.f, running = codes.r, waiting = codes.w, pending = codes.p;

const rgb = (text) => {
  const c = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  c.fillStyle = text;
  c.fillRect(0, 0, 1, 1);
  return [...c.getImageData(0, 0, 1, 1).data.slice(0, 3)];
};

export class Grid {
  /** on.open(index) opens a task, on.say(text) says where the reader is, on.counts(array) how many are in which state. */
  constructor(root, on) {
    this.root = root;
    this.space = root.firstElementChild;
    this.canvas = root.querySelector("canvas");
    this.on = on;
    this.cells = new Uint8Array(0);
    this.level = 0;
    this.cursor = 0;
    this.hover = -1;
    this.small = document.createElement("canvas");
    this.colours();
    onTheme(() => { this.colours(); this.draw(); });
    new ResizeObserver(() => this.layout()).observe(root);
    root.addEventListener("scroll", () => this.draw());
    root.addEventListener("pointermove", (e) => this.point(e));
    root.addEventListener("pointerleave", () => { this.hover = -1; this.draw(); });
    root.addEventListener("click", (e) => this.click(e));
    root.addEventListener("keydown", (e) => this.key(e));
    root.addEventListener("focus", () => { this.say(this.cursor); this.draw(); });
    root.addEventListener("blur", () => this.draw());
    root.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      this.zoom(e.deltaY < 0 ? 1 : -1, this.at(e));
    }, { passive: false });
  }

  colours() {
    this.palette = states.map((s) => rgb(colour(`--${s}`)));
    this.ground = colour("--raised");
    this.mark = colour("--text");
  }

  /** Takes the whole grid as the server sends it. */
  load(bytes) {
    this.cells = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) this.cells[i] = byByte[bytes[i]];
    this.cursor = Math.min(this.cursor, Math.max(0, this.cells.length - 1));
    this.layout();
    this.count();
  }

  /** Takes what changed: n tasks, and start, length, state, start, ... */
  change(n, d) {
    const grown = n !== this.cells.length;
    if (grown) {
      const next = new Uint8Array(n);
      next.set(this.cells.subarray(0, n));
      this.cells = next;
    }
    for (let i = 0; i < d.length; i += 3) this.cells.fill(codes[d[i + 2]], d[i], d[i] + d[i + 1]);
    if (grown) this.layout(); else this.draw();
    this.count();
  }

  count() {
    const n = new Array(states.length).fill(0);
    for (let i = 0; i < this.cells.length; i++) n[this.cells[i]]++;
    this.on.counts(n);
  }

  /** The sizes in which it can be drawn: first the one in which all can be seen. */
  layout() {
    const w = this.root.clientWidth, n = this.cells.length, largest = sizes.at(-1);
    if (!w) return;
    // Few tasks need little room.
    const tallest = matchMedia("(max-width: 640px)").matches ? 240 : 300, needed = Math.ceil(n / Math.max(1, Math.floor(w / largest))) * largest;
    const h = Math.min(tallest, Math.max(needed, largest));
    this.root.style.height = `${h}px`;
    this.w = w;
    this.h = h;
    const fits = (px) => Math.ceil(n / Math.max(1, Math.floor(w / px))) * px <= h;
    const best = [...sizes].reverse().find(fits);
    const first = best ? { px: best, per: 1 } : { px: sizes[0], per: Math.ceil(n / (Math.floor(w / sizes[0]) * Math.floor(h / sizes[0]))) };
    const old = this.levels?.[this.level];
    this.levels = [first, ...sizes.filter((px) => px > (best ?? 0)).map((px) => ({ px, per: 1 }))];
    this.level = this.level && old ? Math.max(0, this.levels.findIndex((l) => l.px === old.px && l.per === old.per)) : 0;
    this.apply();
  }

  apply() {
    const { px, per } = this.levels[this.level];
    this.px = px;
    this.per = per;
    this.cols = Math.max(1, Math.floor(this.w / px));
    this.rows = Math.ceil(Math.ceil(this.cells.length / per) / this.cols);
    this.space.style.height = `${Math.max(this.rows * px, this.h)}px`;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.w * ratio);
    this.canvas.height = Math.round(this.h * ratio);
    this.canvas.style.width = `${this.w}px`;
    this.canvas.style.height = `${this.h}px`;
    this.draw();
  }

  /** Makes tasks larger or smaller; the one at index stays where it is. */
  zoom(by, index = this.cursor) {
    const next = Math.min(Math.max(this.level + by, 0), this.levels.length - 1);
    if (next === this.level) return;
    const y = this.row(index) * this.px - this.root.scrollTop;
    this.level = next;
    this.apply();
    this.root.scrollTop = Math.max(0, this.row(index) * this.px - (y > 0 && y < this.h ? y : this.h / 2));
    this.draw();
  }

  fit() { this.level = 0; this.apply(); }

  row(index) { return Math.floor(Math.floor(index / this.per) / this.cols); }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.paint(); });
  }

  paint() {
    const { px, per, cols, cells } = this, n = cells.length, ctx = this.canvas.getContext("2d"), ratio = this.canvas.width / this.w;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!n) return;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    const top = this.root.scrollTop, from = Math.floor(top / px), rows = Math.min(this.rows - from, Math.ceil(this.h / px) + 1);
    if (rows <= 0) return;
    const image = new ImageData(cols, rows), out = image.data, blend = [0, 0, 0], seen = new Int32Array(states.length);
    for (let k = 0, cell = from * cols; k < cols * rows; k++, cell++) {
      const first = cell * per;
      if (first >= n) break;
      let c = this.palette[cells[first]];
      if (per > 1) {
        const last = Math.min(n, first + per);
        seen.fill(0);
        for (let i = first; i < last; i++) seen[cells[i]]++;
        if (seen[failed]) c = this.palette[failed];
        else if (seen[running]) c = this.palette[running];
        else if (seen[waiting]) c = this.palette[waiting];
        else {
          blend.fill(0);
          for (let s = 0; s < states.length; s++) if (seen[s]) for (let j = 0; j < 3; j++) blend[j] += this.palette[s][j] * seen[s] / (last - first);
          c = blend;
        }
      }
      const o = k * 4;
      out[o] = c[0]; out[o + 1] = c[1]; out[o + 2] = c[2]; out[o + 3] = 255;
    }
    this.small.width = cols;
    this.small.height = rows;
    this.small.getContext("2d").putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    const y = from * px - top;
    ctx.drawImage(this.small, 0, y, cols * px, rows * px);
    if (px >= 4) { // the gaps between tasks
      const gap = px >= 10 ? 2 : 1;
      ctx.fillStyle = this.ground;
      for (let x = 1; x <= cols; x++) ctx.fillRect(x * px - gap, 0, gap, this.h);
      for (let r = 1; r <= rows; r++) ctx.fillRect(0, y + r * px - gap, this.w, gap);
    }
    if (this.hover >= 0) this.outline(ctx, this.hover, 1.5);
    if (document.activeElement === this.root) this.outline(ctx, this.cursor, 2.5);
  }

  outline(ctx, index, width) {
    const cell = Math.floor(index / this.per), size = Math.max(this.px, 5);
    const x = (cell % this.cols) * this.px + (this.px - size) / 2, y = Math.floor(cell / this.cols) * this.px - this.root.scrollTop + (this.px - size) / 2;
    ctx.strokeStyle = this.mark;
    ctx.lineWidth = width;
    ctx.strokeRect(x - 1, y - 1, size + 1, size + 1);
  }

  /** The task at a place on the screen; -1: there is none. */
  at(e) {
    const box = this.root.getBoundingClientRect();
    const x = Math.floor((e.clientX - box.left) / this.px), y = Math.floor((e.clientY - box.top + this.root.scrollTop) / this.px);
    if (x < 0 || x >= this.cols) return -1;
    const index = (y * this.cols + x) * this.per;
    return index >= 0 && index < this.cells.length ? index : -1;
  }

  point(e) {
    const index = this.at(e);
    if (index === this.hover) return;
    this.hover = index;
    if (index >= 0) this.say(index);
    this.draw();
  }

  click(e) {
    const index = this.at(e);
    if (index < 0) return;
    this.cursor = index;
    this.enter(index);
  }

  /** Opens a task; where several are drawn as one, the one that failed, or it looks closer. */
  enter(index) {
    if (this.per === 1 && this.px >= 3) return this.on.open(index);
    const last = Math.min(index + this.per, this.cells.length);
    for (let i = index; i < last; i++) if (this.cells[i] === failed) return this.on.open(i);
    this.level = this.levels.findIndex((l) => l.per === 1 && l.px >= 8);
    this.apply();
    this.root.scrollTop = Math.max(0, this.row(index) * this.px - this.h / 2);
    this.draw();
  }

  say(index) {
    if (!this.cells.length) return;
    if (this.per === 1) return this.on.say(`task ${count(index)}: ${states[this.cells[index]]}`);
    const last = Math.min(index + this.per, this.cells.length), seen = {};
    for (let i = index; i < last; i++) { const s = states[this.cells[i]]; seen[s] = (seen[s] || 0) + 1; }
    this.on.say(`tasks ${count(index)} to ${count(last - 1)}: ` + Object.entries(seen).map(([s, n]) => `${n} ${s}`).join(", "));
  }

  move(index) {
    this.cursor = Math.min(Math.max(index, 0), this.cells.length - 1);
    const y = this.row(this.cursor) * this.px;
    if (y < this.root.scrollTop) this.root.scrollTop = y;
    else if (y + this.px > this.root.scrollTop + this.h) this.root.scrollTop = y + this.px - this.h;
    this.say(this.cursor);
    this.draw();
  }

  /** The next task behind the cursor (or before it) that failed. */
  find(step) {
    for (let i = this.cursor + step; i >= 0 && i < this.cells.length; i += step) if (this.cells[i] === failed) return this.move(i);
    this.on.say(step > 0 ? "no failed task behind this one" : "no failed task before this one");
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const line = this.cols * this.per, page = Math.max(1, Math.floor(this.h / this.px) - 1) * line;
    const keys = {
      ArrowRight: () => this.move(this.cursor + this.per), ArrowLeft: () => this.move(this.cursor - this.per),
      ArrowDown: () => this.move(this.cursor + line < this.cells.length ? this.cursor + line : this.cursor),
      ArrowUp: () => this.move(this.cursor >= line ? this.cursor - line : this.cursor),
      PageDown: () => this.move(this.cursor + page), PageUp: () => this.move(this.cursor - page),
      Home: () => this.move(0), End: () => this.move(this.cells.length - 1),
      "+": () => this.zoom(1), "=": () => this.zoom(1), "-": () => this.zoom(-1), 0: () => this.fit(),
      n: () => this.find(1), p: () => this.find(-1), Enter: () => this.enter(this.cursor), " ": () => this.enter(this.cursor),
    };
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
  }
}
