// The cost card: what the next question takes, before it is sent (POST v1/plan), and the dial that bounds the tokens
// of a picture by scaling it down here.
import { plan } from "./api.js";
import { numbers } from "./dom.js";
import { sizeFor } from "./pictures.js";
import { count, plural, seconds } from "./words.js";

const WAIT_MS = 350; // after the last change
const lead = document.getElementById("cost-lead");
const dial = document.getElementById("dial");
const slider = document.getElementById("bound");
const boundText = document.getElementById("bound-text");
const list = document.getElementById("cost");

// `makeBody(sizes)` gives the next request, or null when there is nothing to ask, which `nothing()` says in words;
// `pictures()` those in it.
export class Cost {
  constructor({ makeBody, pictures, model, nothing }) {
    this.makeBody = makeBody;
    this.pictures = pictures;
    this.model = model;
    this.nothing = nothing;
    this.bound = Infinity; // tokens a picture
    this.timer = 0;
    this.running = null;
    slider.addEventListener("input", () => {
      this.bound = Number(slider.value) >= Number(slider.max) ? Infinity : Number(slider.value);
      boundText.textContent = count(Number(slider.value));
      this.changed();
    });
  }

  // The sizes at which the pictures are sent, by the bound.
  sizes() {
    return this.pictures().map((picture) => sizeFor(picture, picture.full?.[this.model()], this.bound));
  }

  stop() {
    clearTimeout(this.timer);
    this.running?.abort();
  }

  changed() {
    this.stop();
    this.timer = setTimeout(() => this.look(), WAIT_MS);
  }

  say(text) {
    this.stop();
    lead.textContent = text;
    numbers(list, []);
  }

  async look() {
    const running = (this.running = new AbortController());
    const model = this.model();
    try {
      const pictures = this.pictures();
      let body = await this.makeBody(pictures.map(() => null));
      if (!body) {
        this.say(this.nothing());
        this.drawDial(pictures);
        return;
      }
      if (list.childElementCount === 0) lead.textContent = "Working it out…";
      let out = null;
      if (pictures.some((picture) => !picture.full?.[model])) {
        out = await plan(body, running.signal);
        out.pictures.forEach((read, i) => (pictures[i].full = { ...pictures[i].full, [model]: read }));
      }
      this.drawDial(pictures);
      const sizes = this.sizes();
      if (!out || sizes.some(Boolean)) {
        body = await this.makeBody(sizes);
        out = await plan(body, running.signal);
      }
      if (!running.signal.aborted) this.draw(out);
    } catch (problem) {
      if (problem.name !== "AbortError") this.say(problem.message);
    }
  }

  drawDial(pictures) {
    const most = Math.max(0, ...pictures.map((picture) => picture.full?.[this.model()]?.tokens ?? 0));
    dial.hidden = most < 2;
    if (dial.hidden) return;
    const value = Math.min(this.bound, most);
    slider.max = most;
    slider.min = Math.max(1, Math.ceil(most / 16));
    slider.value = value;
    boundText.textContent = count(Number(slider.value));
  }

  draw(out) {
    const time = out.predicted_seconds;
    const about = time.first_token < 0.1 ? "" : "about ";
    lead.replaceChildren("First word in ", about, Object.assign(document.createElement("strong"),
      { textContent: seconds(time.first_token) }), out.queue.processing ? ", after the questions before it" : "");
    const rows = out.pictures.map((picture, i) => [
      out.pictures.length > 1 ? `Picture ${i + 1}` : "Picture",
      `${plural(picture.tokens, "token")}, read at ${picture.read_at.join(" × ")}`,
    ]);
    rows.push(["Text", plural(out.prompt_tokens - out.picture_tokens, "token")]);
    rows.push(["Together", `${count(out.prompt_tokens)} of ${count(out.context_tokens)}`]);
    if (out.pictures.length) rows.push(["Seeing", seconds(time.picture + time.encode)]);
    rows.push(["Reading", seconds(time.prefill)]);
    if (out.predicted_tokens_per_second)
      rows.push(["Answering", `${count(out.predicted_tokens_per_second)} tokens a second`]);
    numbers(list, rows);
  }
}
