// The memory card: what is planned, used, allowed, and which models are loaded.
import { running, setLoaded } from "./api.js";
import { element, numbers } from "./dom.js";
import { bytes, count } from "./words.js";

const EVERY_MS = 2000;
const PHASES = { loaded: "loaded", loading: "is being loaded", unloaded: "not loaded" };

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
  const memory = state.memory_bytes;
  const scale = memory.limit || Math.max(memory.reserved, memory.process_anonymous, 1);
  const share = (value) => `${Math.min(100, Math.max(value > 0 ? 1 : 0, (100 * value) / scale))}%`;
  document.getElementById("bar-planned").style.width = share(memory.reserved);
  document.getElementById("bar-used").style.width = share(memory.process_anonymous);
  const ceiling = memory.limit ? bytes(memory.limit) : "none";
  bar.setAttribute("aria-label",
    `Used ${bytes(memory.process_anonymous)}, planned ${bytes(memory.reserved)}, ceiling ${ceiling}`);
  numbers(document.getElementById("memory"), [
    ["Used now", bytes(memory.process_anonymous), "used"],
    ["Planned for loaded models", bytes(memory.reserved), "planned"],
    ["Ceiling", ceiling],
    ["Weights, mapped from files", bytes(memory.mapped)],
    ...(state.queue.waiting ? [["Questions that wait", count(state.queue.waiting)]] : []),
  ]);
  const shown = JSON.stringify(state.models.map((model) => [model.name, model.phase, model.reserved_bytes]));
  if (shown === drawnModels) return; // keeps the focus where it is
  drawnModels = shown;
  models.replaceChildren(...state.models.map((model) => {
    const isLoaded = model.phase === "loaded";
    const button = element("button", { type: "button", disabled: model.phase === "loading" }, isLoaded ? "Unload" : "Load");
    button.dataset.model = model.name;
    button.setAttribute("aria-label", `${button.textContent} ${model.name}`);
    button.addEventListener("click", () => change(model.name, !isLoaded, button));
    const needs = model.reserved_bytes ? `, ${bytes(model.reserved_bytes)} planned` : "";
    return element("li", {},
      element("span", { className: "name" }, model.name, element("small", {}, PHASES[model.phase] + needs)), button);
  }));
}
