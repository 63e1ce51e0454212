import "./page.js";
import { followLog } from "./log.js";

followLog(document.getElementById("log"));
