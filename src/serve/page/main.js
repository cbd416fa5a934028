// The page: one conversation at a time, its questions, and the cards beside it.
import { ask, listModels, onKeyNeeded } from "./api.js";
import { Cost } from "./cost.js";
import { element } from "./dom.js";
import { drawHistory } from "./history.js";
import { watchMemory } from "./memory.js";
import { dataUrl, drop, openPicture, showable } from "./pictures.js";
import * as store from "./store.js";
import { plural, Problem, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const question = $("question");
let models = [];
let conversation = fresh();
let pending = []; // pictures of the next question
let answering = null; // AbortController of the answer in the making
const NOT_LOADED = "The model is not loaded. Asking loads it.";
let noCost = NOT_LOADED; // why none is told; empty: it is

function fresh() {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, time: Date.now(), model: "", turns: [] };
}

const model = () => $("model").value;
const readsPictures = () =>
  models.find((entry) => entry.id === model())?.architecture.input_modalities.includes("image") ?? true;

// Requests

const allPictures = () => [...conversation.turns.flatMap((turn) => turn.pictures), ...pending];

// Every turn, pictures before their text; `sizes` are those of allPictures().
async function messages(turns, sizes) {
  let next = 0;
  const out = [];
  for (const turn of turns) {
    const parts = [];
    for (const picture of turn.pictures)
      parts.push({ type: "image_url", image_url: { url: await dataUrl(picture, sizes[next++]) } });
    parts.push({ type: "text", text: turn.text });
    out.push({ role: turn.role, content: turn.pictures.length ? parts : turn.text });
  }
  return out;
}

const cost = new Cost({
  model,
  pictures: allPictures,
  nothing: () => noCost || "Add a picture or type, and this says what it will cost.",
  async makeBody(sizes) {
    if (noCost || answering || (pending.length === 0 && question.value.trim() === "")) return null;
    const turns = [...conversation.turns, { role: "user", text: question.value.trim() || "?", pictures: pending }];
    return { model: model(), messages: await messages(turns, sizes) };
  },
});

async function send() {
  const text = question.value.trim();
  if (answering || (text === "" && pending.length === 0)) {
    question.focus();
    return;
  }
  hideProblem();
  cost.stop();
  const turn = { role: "user", text: text || "What is in this picture?", pictures: pending };
  const sizes = cost.sizes();
  const draft = { text: question.value, pictures: pending };
  pending = [];
  question.value = "";
  conversation.model = model();
  conversation.turns.push(turn);
  drawPending();
  const asked = drawTurn(turn);
  const reply = { role: "assistant", text: "", pictures: [], below: "" };
  const drawn = drawTurn(reply);
  answering = new AbortController();
  say("Sent. Waiting for the server…");
  drawBusy();
  drawn.text.setAttribute("aria-busy", "true");
  let failed = null, isStopped = false;
  try {
    const body = { model: model(), messages: await messages(conversation.turns, sizes) };
    const end = await ask(body, {
      signal: answering.signal,
      onText(piece) {
        if (reply.text === "") say("Answering…");
        reply.text += piece;
        drawn.text.append(piece);
        keepInView(drawn.item);
      },
      onProgress: (progress) => say(progressWords(progress)),
    });
    reply.below = numbersOf(end);
  } catch (problem) {
    if (problem.name === "AbortError") isStopped = true;
    else failed = problem;
  }
  answering = null;
  drawn.text.removeAttribute("aria-busy");
  say(failed ? "" : isStopped ? "Stopped." : "The answer is here.");
  if ((failed || isStopped) && reply.text === "") {
    // As before the question, so that it can be changed and asked again.
    conversation.turns.pop();
    asked.item.remove();
    drawn.item.remove();
    if (question.value === "") question.value = draft.text;
    pending = [...draft.pictures, ...pending];
    drawPending();
  } else {
    if (failed) reply.below = "Not whole.";
    if (isStopped) reply.below = "Stopped.";
    conversation.turns.push(reply);
    drawn.below(reply);
    keepInView(drawn.item);
    keep();
  }
  drawBusy();
  if (failed) showProblem(failed);
  memory.look();
  cost.changed();
  if (!failed) question.focus({ preventScroll: true });
}

function progressWords(progress) {
  const [, stage, done, total] = progress.match(/^(.*?)(?: (\d+)\/(\d+))?$/);
  const share = Number(total) > 1 ? `, ${done} of ${total}` : "";
  return `${stage.charAt(0).toUpperCase()}${stage.slice(1)}${share}…`;
}

function numbersOf(end) {
  // Another program's server may tell less.
  if (end.timings?.first_token_ms === undefined || !end.usage?.prompt_tokens_details) return "";
  const { timings, usage } = end;
  const parts = [plural(usage.prompt_tokens, "token") + ` read, ${usage.prompt_tokens_details.image_tokens} of pictures`,
    `first word after ${seconds(timings.first_token_ms / 1000)}`];
  if (timings.predicted_per_second) parts.push(`${Math.round(timings.predicted_per_second)} tokens a second`);
  if (end.finish === "length") parts.push("cut off: the context is full");
  return parts.join(" · ");
}

async function keep() {
  try {
    conversation.time = Date.now();
    await store.save(conversation);
    history();
  } catch (error) {
    showProblem(new Problem("The browser does not keep this conversation: it has no storage left, or forbids it.",
      { raw: String(error) }));
  }
}

// Drawing

function drawTurn(turn) {
  $("welcome").hidden = true;
  const text = element("div", { className: "text" }, turn.text);
  const item = element("li", { className: `turn ${turn.role}` });
  item.append(element("span", { className: "hidden" }, turn.role === "user" ? "You: " : "Answer: "));
  if (turn.pictures.length)
    item.append(element("div", { className: "shown" }, ...turn.pictures.map((picture) =>
      element("img", { src: picture.url, alt: picture.name ? `Picture ${picture.name}` : "Picture" }))));
  item.append(text);
  const below = (finished) => {
    const copy = element("button", { type: "button", className: "plain" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard?.writeText(finished.text);
      say(navigator.clipboard ? "Copied." : "The browser allows copying on https and localhost only.");
    });
    item.append(element("div", { className: "below" }, element("span", {}, finished.below), copy));
  };
  if (turn.role === "assistant" && turn.below) below(turn);
  $("turns").append(item);
  keepInView(item, true);
  return { item, text, below };
}

// Above the composer, which may lie over the end of the page. Who has scrolled up to read is left there.
function keepInView(item, always = false) {
  const composer = $("composer");
  const isSticky = getComputedStyle(composer).position === "sticky";
  item.style.scrollMarginBottom = isSticky ? `${composer.offsetHeight + 32}px` : "0";
  const space = item.getBoundingClientRect().bottom - window.innerHeight;
  if (always || space < 400) item.scrollIntoView({ block: "nearest" });
}

function drawPending() {
  $("pictures").replaceChildren(...pending.map((picture) => {
    const remove = element("button", { type: "button" }, element("span", { ariaHidden: "true" }, "×"));
    remove.setAttribute("aria-label", `Remove ${picture.name || "the picture"}`);
    remove.addEventListener("click", () => {
      pending = pending.filter((other) => other !== picture);
      drop(picture);
      drawPending();
      cost.changed();
      question.focus();
    });
    return element("li", {}, element("img", { src: picture.url, alt: picture.name || "Pasted picture" }), remove);
  }));
}

function drawBusy() {
  const busy = answering !== null;
  $("ask").hidden = busy;
  $("stop").hidden = !busy;
  $("new").disabled = busy;
  $("model").disabled = busy || models.length === 0;
  for (const id of ["choose", "camera"]) $(id).disabled = !readsPictures();
  if (busy) $("stop").focus({ preventScroll: true });
  history();
}

function drawConversation() {
  $("turns").replaceChildren();
  $("welcome").hidden = conversation.turns.length > 0;
  for (const turn of conversation.turns) drawTurn(turn);
  drawPending();
}

function say(text) {
  $("status").textContent = text;
}

function showProblem(problem) {
  $("error-text").textContent = problem instanceof Problem ? problem.message : "The page met a bug of its own.";
  const raw = problem instanceof Problem ? problem.raw : String(problem);
  $("error-raw").textContent = raw;
  $("error-details").hidden = raw === "";
  $("error").hidden = false;
  requestAnimationFrame(() => keepInView($("error"), true)); // once the composer has its height
}

function hideProblem() {
  $("error").hidden = true;
}

// Pictures that come in

async function take(files) {
  hideProblem();
  if (!readsPictures()) {
    showProblem(new Problem("This model reads no pictures. Choose another model."));
    return;
  }
  for (const file of files) {
    try {
      pending.push(await openPicture(file));
    } catch (problem) {
      showProblem(problem);
    }
  }
  drawPending();
  cost.changed();
  question.focus({ preventScroll: true });
}

for (const [button, input] of [["choose", "file"], ["camera", "camera-file"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    take([...$(input).files]);
    $(input).value = "";
  });
}
// Elsewhere the browser would only open the same choice of files.
$("camera").hidden = !matchMedia("(pointer: coarse)").matches;

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length === 0) return;
  event.preventDefault();
  take(files);
});

let dragDepth = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (hasFiles(event)) $("drop").hidden = ++dragDepth === 0;
});
addEventListener("dragleave", (event) => {
  if (hasFiles(event)) $("drop").hidden = --dragDepth <= 0;
});
addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  dragDepth = 0;
  $("drop").hidden = true;
  take([...event.dataTransfer.files]);
});

// History

function history() {
  drawHistory({ current: conversation.id, busy: answering !== null, open: show, changed: history }).catch(() => {
    $("history-empty").hidden = false;
    $("history-empty").textContent = "This browser keeps nothing: it forbids storage here.";
  });
}

function modelChanged() {
  drawBusy();
  noCost = NOT_LOADED; // until its phase is known
  cost.changed();
  memory.look();
}

// Another conversation, or a new one.
function show(other) {
  if (answering) return;
  allPictures().forEach(drop);
  pending = [];
  conversation = other ?? fresh();
  for (const turn of conversation.turns) turn.pictures.forEach(showable);
  if (conversation.model !== model() && models.some((entry) => entry.id === conversation.model)) {
    $("model").value = conversation.model;
    modelChanged();
  }
  hideProblem();
  say("");
  drawConversation();
  history();
  cost.changed();
  question.focus();
}

// The rest of the controls

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
question.addEventListener("input", () => cost.changed());
addEventListener("keydown", (event) => event.key === "Escape" && answering?.abort());
$("stop").addEventListener("click", () => answering?.abort());
$("new").addEventListener("click", () => show(null));
$("error-close").addEventListener("click", () => {
  hideProblem();
  question.focus();
});
$("model").addEventListener("change", modelChanged);

$("theme").value = document.documentElement.dataset.theme ?? "auto";
$("theme").addEventListener("change", () => {
  const theme = $("theme").value;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem("pinhole-theme");
    else localStorage.setItem("pinhole-theme", theme);
  } catch {
    // Not kept; it holds until the page is closed.
  }
});

onKeyNeeded((wasWrong) => new Promise((resolve) => {
  const dialog = $("key-dialog");
  if (wasWrong) $("key-text").textContent = "The server does not know this key. Try another.";
  $("key").value = "";
  dialog.returnValue = "";
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    dialog.close($("key").value.trim());
  };
  $("key-cancel").onclick = () => dialog.close("");
  dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
  dialog.showModal();
}));

async function loadModels() {
  models = await listModels();
  const chosen = model();
  const name = (entry) => (entry.architecture.input_modalities.includes("image") ? entry.id : `${entry.id} (text only)`);
  $("model").replaceChildren(...models.map((entry) => element("option", { value: entry.id }, name(entry))));
  if (models.some((entry) => entry.id === chosen)) $("model").value = chosen;
  drawBusy();
}

const memory = watchMemory((state) => {
  const now = state?.models.find((entry) => entry.name === model());
  const before = noCost;
  noCost = now?.is_external ? "A server of its own answers for this model: what that costs is not known."
    : now?.phase === "ready" ? "" : now?.phase === "loading" ? "The model is being loaded." : NOT_LOADED;
  if (noCost === before) return;
  if (noCost === "") {
    cost.changed();
    // What the model can do is known once it has been loaded.
    loadModels().catch(showProblem);
  } else if (now) {
    cost.say(noCost);
  }
}, showProblem);

history();
try {
  await loadModels();
} catch (problem) {
  showProblem(problem);
}
memory.look();
