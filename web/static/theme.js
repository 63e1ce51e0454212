// Before the first paint: what the reader chose last.
(() => {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("theme") || ""; } catch { return ""; } };
  const set = (t) => { if (t) root.dataset.theme = t; else delete root.dataset.theme; };
  set(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const order = ["", "light", "dark"];
    const name = () => { button.querySelector(".words").textContent = "Theme: " + (read() || "system"); button.title = button.textContent.trim(); };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(read()) + 1) % order.length];
      try { localStorage.setItem("theme", next); } catch { /* then it holds for this page */ }
      set(next);
      name();
      document.dispatchEvent(new Event("theme"));
    });
  });
})();
