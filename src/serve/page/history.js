// The list of earlier conversations.
import { element } from "./dom.js";
import * as store from "./store.js";

const list = document.getElementById("history");
const clear = document.getElementById("history-clear");
const empty = document.getElementById("history-empty");
let after = () => {};

const title = (conversation) => conversation.turns.find((turn) => turn.role === "user")?.text ?? "Without words";
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export async function drawHistory({ current, busy, open, changed }) {
  after = changed;
  const all = await store.list();
  empty.hidden = all.length > 0;
  clear.hidden = all.length === 0;
  clear.disabled = busy;
  list.replaceChildren(...all.map((conversation) => {
    const show = element("button", { type: "button", className: "plain open", disabled: busy },
      element("span", {}, title(conversation)), element("small", {}, when.format(conversation.time)));
    if (conversation.id === current) show.setAttribute("aria-current", "true");
    show.addEventListener("click", () => open(conversation));
    const remove = element("button", { type: "button", className: "plain", disabled: busy }, "×");
    remove.setAttribute("aria-label", `Delete “${title(conversation)}”`);
    remove.addEventListener("click", async () => {
      await store.remove(conversation.id);
      changed();
    });
    return element("li", {}, show, remove);
  }));
}

clear.addEventListener("click", async () => {
  if (!confirm("Delete all conversations that this browser keeps?")) return;
  await store.clear();
  after();
});
