// The memory card: what is planned, used, allowed, and which models are loaded.
import { running, setLoaded } from "./api.js";
import { element, numbers } from "./dom.js";
import { bytes, count } from "./words.js";

const EVERY_MS = 2000;
const PHASES = {
  absent: "not loaded", loading: "is being loaded", ready: "loaded", draining: "answers, then leaves",
  unloading: "is being unloaded",
};

const bar = document.getElementById("bar");
const models = document.getElementById("models");
let drawnModels = "";

// `onState` gets every answer of the server; `onProblem` what goes wrong when a button is used.
export function watchMemory(onState, onProblem) {
  let timer = 0;
  async function look() {
    clearTimeout(timer);
    try {
      const state = await running();
      draw(state, change);
      onState(state);
    } catch {
      onState(null); // what the user does next says what is wrong
    }
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  }
  async function change(name, loaded, button) {
    button.disabled = true;
    button.textContent = loaded ? "Loading…" : "Unloading…";
    try {
      await setLoaded(name, loaded);
    } catch (problem) {
      onProblem(problem);
    }
    drawnModels = "";
    await look();
    models.querySelector(`[data-model="${CSS.escape(name)}"]`)?.focus();
  }
  document.addEventListener("visibilitychange", () => document.hidden || look());
  return { look };
}

function draw(state, change) {
  const { limit_bytes: limit, reserved_bytes: reserved, rss_anon_bytes: used } = state;
  const sum = (field) => state.models.reduce((all, model) => all + model[field], 0);
  const scale = limit || Math.max(reserved, used, 1);
  const share = (value) => `${Math.min(100, Math.max(value > 0 ? 1 : 0, (100 * value) / scale))}%`;
  document.getElementById("bar-planned").style.width = share(reserved);
  document.getElementById("bar-used").style.width = share(used);
  const ceiling = limit ? bytes(limit) : "none";
  bar.setAttribute("aria-label",
    `Used ${bytes(used)}, planned ${bytes(reserved)}, ceiling ${ceiling}`);
  numbers(document.getElementById("memory"), [
    ["Used now, beside weights", bytes(used), "used"],
    ["Planned for loaded models", bytes(reserved), "planned"],
    ["of that, weights mapped from files", bytes(sum("mapped_bytes"))],
    ["Ceiling", ceiling],
    ...(sum("waiting") ? [["Questions that wait", count(sum("waiting"))]] : []),
  ]);
  const shown = JSON.stringify(state.models.map((model) => [model.name, model.phase, model.planned_bytes, model.error]));
  if (shown === drawnModels) return; // keeps the focus where it is
  drawnModels = shown;
  models.replaceChildren(...state.models.map((model) => {
    const isLoaded = model.phase === "ready";
    const button = element("button", { type: "button", disabled: !isLoaded && model.phase !== "absent" }, isLoaded ? "Unload" : "Load");
    button.dataset.model = model.name;
    button.setAttribute("aria-label", `${button.textContent} ${model.name}`);
    button.addEventListener("click", () => change(model.name, !isLoaded, button));
    const needs = model.planned_bytes ? `, ${bytes(model.planned_bytes)} planned` : "";
    const failure = model.error && !isLoaded ? [element("small", {}, `Last time: ${model.error}`)] : [];
    return element("li", {},
      element("span", { className: "name" }, model.name, element("small", {}, PHASES[model.phase] + needs), ...failure), button);
  }));
}
