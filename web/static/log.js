import { follow } from "./page.js";

const most = 2_000_000; // characters that stay on the page

/** Follows a log that still grows; what programs print is text, never HTML. Returns a function that ends it. */
export function followLog(pre) {
  if (!pre?.dataset.events) {
    if (pre) pre.scrollTop = pre.scrollHeight;
    return () => {};
  }
  let size = 0;
  return follow(pre.dataset.events, {
    start: (off) => { pre.textContent = Number(off) > 0 ? "…\n" : ""; size = 0; },
    log: (json) => {
      const text = JSON.parse(json), atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 30;
      pre.append(text);
      size += text.length;
      while (size > most && pre.firstChild !== pre.lastChild) {
        size -= pre.firstChild.textContent.length;
        pre.firstChild.remove();
      }
      if (atEnd) pre.scrollTop = pre.scrollHeight;
    },
    end: () => {
      if (!pre.textContent) pre.textContent = "It printed nothing.";
      pre.dispatchEvent(new CustomEvent("ended", { bubbles: true }));
    },
  });
}
