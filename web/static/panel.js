import { inside, localTimes } from "./page.js";
import { followLog } from "./log.js";

/** The panel in which tasks are opened beside a run. */
export class Panel {
  constructor(dialog, run) {
    this.dialog = dialog;
    this.body = dialog.querySelector(".body");
    this.run = run;
    this.stop = () => {};
    dialog.addEventListener("close", () => {
      this.stop();
      this.body.replaceChildren();
      history.replaceState(null, "", location.pathname + location.search);
    });
    dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
    this.body.addEventListener("ended", () => setTimeout(() => this.dialog.open && this.open(this.url), 300));
    document.addEventListener("click", (e) => {
      const link = e.target.closest?.("a.task");
      if (!link || e.metaKey || e.ctrlKey || e.shiftKey || e.button) return;
      e.preventDefault();
      this.open(link.getAttribute("href"));
    });
  }

  task(fn, index) { return this.open(`/runs/${encodeURIComponent(this.run)}/tasks/${encodeURIComponent(fn)}/${index}`); }

  async open(url) {
    this.url = url;
    const { html } = await inside(url);
    if (this.url !== url) return;
    this.stop();
    this.body.innerHTML = html; // the server escaped it
    localTimes(this.body);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.stop = followLog(this.body.querySelector("#log"));
    const task = this.body.querySelector("#task");
    if (task) history.replaceState(null, "", `#${task.dataset.function}/${task.dataset.index}`);
  }

  /** Opens the task that the address names. */
  fromAddress() {
    const m = /^#([\w-]+)\/(\d+)$/.exec(location.hash);
    if (m) this.task(m[1], m[2]);
  }
}
