import { follow, morph } from "./page.js";
import { durations } from "./charts.js";

const live = document.getElementById("live");
if (live) follow(live.dataset.events, { live: (html) => morph(live, html) });
const chart = document.getElementById("durations");
if (chart) durations(chart);
