// The server's endpoints. Addresses are relative, so that the page also works behind a proxy's path.
import { Problem, problemOf } from "./words.js";

const KEY = "pinhole-key";
let askForKey = null; // (wasWrong) => Promise<key or null>
let asking = null;

// `ask` shows the dialog; one at a time, whatever number of requests need the key.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

async function newKey(used) {
  if (storedKey() !== used) return storedKey(); // another request has got one meanwhile
  asking ??= askForKey(used !== null).finally(() => (asking = null));
  const key = await asking;
  if (key) sessionStorage.setItem(KEY, key);
  return key;
}

async function send(path, { method = "GET", body, signal, quiet = false } = {}) {
  while (true) {
    const key = storedKey();
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key) headers.Authorization = `Bearer ${key}`;
    let reply;
    try {
      reply = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The server does not answer. Is pinhole still running?", { raw: String(error.message) });
    }
    if (reply.ok) return reply;
    if (reply.status === 401 && !quiet && (await newKey(key))) continue;
    let error = "";
    try {
      error = (await reply.json()).error ?? "";
    } catch {
      // No JSON: a proxy's page. The status says enough.
    }
    throw problemOf(reply.status, error);
  }
}

const json = async (path, options) => (await send(path, options)).json();

export const listModels = async () => (await json("v1/models")).data;
export const running = () => json("running", { quiet: true }); // asks for no key: nobody pressed anything
export const plan = (body, signal) => json("v1/plan", { method: "POST", body, signal });

// Ollama's way: an empty prompt loads a model, and unloads it when nothing is to be kept.
export function setLoaded(model, loaded) {
  const body = { model, stream: false };
  if (!loaded) body.keep_alive = 0;
  return json("api/generate", { method: "POST", body });
}

// Streams an answer. `onText` gets pieces of it, `onProgress` what the server says it does meanwhile. Returns the
// last event: {usage, timings, pictures}.
export async function ask(body, { signal, onText, onProgress }) {
  const reply = await send("v1/chat/completions", {
    method: "POST", signal, body: { ...body, stream: true, stream_options: { include_usage: true } },
  });
  let last = null, finish = null, done = false;
  try {
    for await (const line of linesOf(reply.body)) {
      if (line.startsWith(":")) onProgress(line.slice(1).trim());
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") {
        done = true;
        continue;
      }
      const event = JSON.parse(data);
      if (event.error) throw problemOf(event.error.status ?? 500, event.error);
      if (event.usage) last = event;
      const choice = event.choices?.[0];
      if (choice?.delta?.content) onText(choice.delta.content);
      finish = choice?.finish_reason ?? finish;
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem("The connection broke before the answer was whole.", { raw: String(error.message) });
  }
  if (!done) throw new Problem("The connection ended before the answer was whole.");
  return { ...last, finish };
}

async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) break;
      rest += value;
      const lines = rest.split("\n");
      rest = lines.pop();
      yield* lines;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
