import { follow, morph } from "./page.js";

const live = document.getElementById("live");
follow(live.dataset.events, { live: (html) => morph(live, html) });

// Choosing is enough; the button is for those without scripts.
const form = document.querySelector("form.filter");
form.addEventListener("change", () => form.requestSubmit());
