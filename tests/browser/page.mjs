// The page of pinhole serve in Chromium, with the bundled model; its answers are those that transformers gave.
import { join } from "node:path";
import { assert, folder, key, model, picture, run, sample, serve, untilIdle } from "./server.mjs";
import { browser, give, leastContrast, openPage, shot, smallTargets } from "./support.mjs";

const server = await serve();
const file = join(folder, sample.image);

async function ask(page, text) {
  const before = await page.locator(".turn.assistant .below").count();
  await page.fill("#question", text);
  await page.press("#question", "Enter");
  await page.locator(".turn.assistant .below").nth(before).waitFor();
  return page.locator(".turn.assistant .text").nth(before).textContent();
}
const say = (page, id, pattern, timeout = 30_000) => page.waitForFunction(
  ([id, source]) => new RegExp(source).test(document.getElementById(id).textContent), [id, pattern.source], { timeout });
const errorOf = async (page) => {
  await page.locator("#error").waitFor();
  return page.textContent("#error-text");
};
const sizeOfPng = (url) => {
  const bytes = Buffer.from(url.split(",")[1], "base64");
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
};

const failed = await run({
  async "a picture, its cost, an answer that streams, a second question, the history"() {
    const { page, posted, close } = await openPage(server.url);
    await say(page, "model", new RegExp(model));
    await shot(page, "empty");
    await page.setInputFiles("#file", file);
    // The first plan measures this machine's kernels.
    await say(page, "cost", /Picture\d+ tokens?, read at \d+ × \d+/, 150_000);
    await say(page, "cost-lead", /First word in (about|<)/);
    const plan = JSON.parse(await (await posted("v1/plan").at(-1).response()).text());
    await say(page, "cost", new RegExp(`${plan.picture_tokens} tokens, read at ${plan.pictures[0].read_at.join(" × ")}`));
    // Every event of the stream is a piece of its own in the page.
    await page.evaluate(() => {
      window.pieces = 0;
      new MutationObserver((changes) => {
        for (const change of changes) window.pieces += change.target.matches?.(".assistant .text") ? change.addedNodes.length : 0;
      }).observe(document.getElementById("turns"), { childList: true, subtree: true });
    });
    assert.equal(await ask(page, sample.question), sample.answer);
    assert.ok((await ask(page, "List all boxes.")).length > 0);
    assert.ok((await page.evaluate(() => window.pieces)) > 3);
    const second = posted("v1/chat/completions")[1].postDataJSON();
    assert.deepEqual(second.messages.map((message) => message.role), ["user", "assistant", "user"]);
    assert.equal(second.messages[0].content.filter((part) => part.type === "image_url").length, 1);
    assert.equal(Buffer.from(second.messages[0].content[0].image_url.url.split(",")[1], "base64").compare(picture), 0);
    assert.match(await page.textContent(".turn.assistant .below"), /tokens? read, \d+ of pictures · first word after/);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 1280, "no scrolling sideways");
    await shot(page, "light");
    await page.reload();
    await page.locator("#history .open").click();
    assert.equal(await page.locator(".turn").count(), 4);
    assert.equal(await page.locator(".turn img").evaluate((image) => image.decode().then(() => image.naturalWidth > 0)), true);
    page.once("dialog", (dialog) => dialog.accept());
    await page.click("#history-clear");
    await page.locator("#history-empty").waitFor();
    await page.reload();
    await page.locator("#history-empty").waitFor();
    await close();
  },
  async "the dial bounds what a picture costs"() {
    const { page, posted, close } = await openPage(server.url);
    await page.setInputFiles("#file", file);
    await page.locator("#dial").waitFor();
    const full = Number(await page.getAttribute("#bound", "max"));
    const bound = Math.floor(full / 2);
    await page.fill("#bound", String(bound));
    await page.waitForFunction((full) => {
      const tokens = document.querySelector("#cost dd")?.textContent.match(/^(\d+) token/);
      return tokens && Number(tokens[1]) < full;
    }, full);
    const plan = JSON.parse(await (await posted("v1/plan").at(-1).response()).text());
    assert.ok(plan.picture_tokens <= bound && plan.picture_tokens >= bound / 2, `${plan.picture_tokens} of ${bound}`);
    await ask(page, sample.question);
    const sent = sizeOfPng(posted("v1/chat/completions")[0].postDataJSON().messages[0].content[0].image_url.url);
    assert.deepEqual(sent, plan.pictures[0].read_at);
    await close();
  },
  async "paste and drop"() {
    const { page, close } = await openPage(server.url);
    await give(page, "paste", picture, "pasted.png");
    await page.locator("#pictures img").waitFor();
    await give(page, "drop", picture, "dropped.png");
    await page.locator("#pictures li:nth-child(2)").waitFor();
    assert.equal(await page.locator("#drop").isVisible(), false);
    await page.getByRole("button", { name: "Remove dropped.png" }).click();
    assert.equal(await page.locator("#pictures li").count(), 1);
    assert.equal(await ask(page, sample.question), sample.answer);
    await close();
  },
  async "a GIF is sent as what the server reads, a text is refused in words"() {
    const { page, posted, close } = await openPage(server.url);
    const gif = Buffer.from("R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==", "base64");
    await page.setInputFiles("#file", { name: "dot.gif", mimeType: "image/gif", buffer: gif });
    await say(page, "cost", /Picture\d+ token/);
    const url = posted("v1/plan").at(-1).postDataJSON().messages[0].content[0].image_url.url;
    assert.deepEqual(sizeOfPng(url), [1, 1]);
    await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
    assert.match(await errorOf(page), /notes\.txt.*is not a picture/);
    assert.equal(await page.locator("#pictures li").count(), 1);
    await shot(page, "error");
    await page.click("#error-close");
    assert.equal(await page.locator("#error").isVisible(), false);
    await close();
  },
  async "what does not fit is said, and the question is there again"() {
    const { page, close } = await openPage(server.url, { expected: [/status of 400/] });
    const long = "word ".repeat(2000);
    await page.fill("#question", long);
    await page.click("#ask");
    assert.match(await errorOf(page), /does not fit/);
    assert.match(await page.textContent("#error-raw"), /the context holds 1024/);
    assert.equal(await page.inputValue("#question"), long);
    assert.equal(await page.locator(".turn").count(), 0);
    await close();
  },
  async "models are unloaded and loaded; the bar shows it"() {
    const { page, close } = await openPage(server.url);
    const planned = () => page.locator("#memory dd").nth(1).textContent();
    await page.getByRole("button", { name: `Unload ${model}` }).click();
    await page.getByRole("button", { name: `Load ${model}`, exact: true }).waitFor();
    assert.equal(await planned(), "0 bytes");
    await page.fill("#question", "a");
    await say(page, "cost-lead", /not loaded/);
    assert.deepEqual((await (await fetch(server.url + "/api/ps")).json()).models, [], "a look at the cost loads nothing");
    await page.getByRole("button", { name: `Load ${model}`, exact: true }).click();
    await page.getByRole("button", { name: `Unload ${model}` }).waitFor();
    const state = await (await fetch(server.url + "/running")).json();
    assert.equal(state.models[0].phase, "ready");
    assert.ok(state.reserved_bytes > 0 && state.limit_bytes > state.reserved_bytes);
    assert.ok(state.rss_anon_bytes > 0);
    assert.match(await planned(), /MiB$/);
    assert.match(await page.getAttribute("#bar", "aria-label"), /Used .*, planned .*, ceiling/);
    await close();
  },
  async "stop, by the button and by Escape"() {
    const { page, requests, close } = await openPage(server.url);
    await say(page, "model", new RegExp(model));
    for (const stop of [() => page.click("#stop"), () => page.keyboard.press("Escape")]) {
      process.kill(server.pid, "SIGSTOP"); // a server that takes its time
      try {
        await page.fill("#question", "List all boxes.");
        await page.press("#question", "Enter");
        await page.locator("#stop").waitFor();
        await shot(page, "busy");
        await stop();
        await page.locator("#ask").waitFor();
        assert.equal(await page.textContent("#status"), "Stopped.");
        assert.equal(await page.inputValue("#question"), "List all boxes.", "nothing was said: as before");
        assert.equal(await page.locator(".turn").count(), 0);
      } finally {
        process.kill(server.pid, "SIGCONT");
      }
      const last = requests.filter((request) => request.url().endsWith("chat/completions")).at(-1);
      assert.match(last.failure()?.errorText ?? "", /ABORTED/);
    }
    await untilIdle(server.url);
    await close();
  },
  async "light and dark, by the system and by the switch, readable in both"() {
    const { page, close } = await openPage(server.url, { colorScheme: "dark" });
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await background();
    await page.setInputFiles("#file", file);
    await ask(page, sample.question);
    await page.setInputFiles("#file", file);
    await say(page, "cost", /Picture/);
    await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
    await errorOf(page);
    const readable = async () => {
      const least = await leastContrast(page);
      assert.ok(least.ratio >= 4.5, `${least.ratio.toFixed(2)}: ${least.text}`);
    };
    await readable();
    await shot(page, "dark");
    await page.selectOption("#theme", "light");
    assert.notEqual(await background(), dark);
    await readable();
    await page.reload();
    assert.notEqual(await background(), dark, "kept");
    await page.selectOption("#theme", "auto");
    assert.equal(await background(), dark);
    await close();
  },
  async "a phone"() {
    const { page, close } = await openPage(server.url, {
      viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    await page.locator("#camera").waitFor();
    assert.equal(await page.getAttribute("#camera-file", "capture"), "environment");
    await page.setInputFiles("#camera-file", file);
    assert.equal(await ask(page, sample.question), sample.answer);
    await page.setInputFiles("#file", file);
    await page.locator("#dial").waitFor();
    assert.deepEqual(await smallTargets(page), []);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390, "no scrolling sideways");
    await shot(page, "phone");
    await shot(page, "phone-whole", true);
    await close();
  },
  async "by keyboard alone"() {
    const { page, close } = await openPage(server.url);
    await say(page, "model", new RegExp(model));
    await page.getByRole("button", { name: `Unload ${model}` }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    const order = [];
    for (let i = 0; i < 10; ++i) {
      await page.keyboard.press("Tab");
      order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.ariaLabel));
    }
    assert.deepEqual(order.slice(0, 7), ["model", "theme", "question", "choose", "new", "ask", `Unload ${model}`]);
    const unnamed = await page.evaluate(() => [...document.querySelectorAll("button, select, textarea, input:not([hidden])")]
      .filter((control) => !control.ariaLabel && !control.labels?.length && !control.textContent.trim()).map((control) => control.id));
    assert.deepEqual(unnamed, []);
    await close();
  },
  async "a key is asked for once"() {
    const guarded = await serve("--api-key", key);
    const { page, close } = await openPage(guarded.url, { expected: [/status of 401/] });
    await page.fill("#key", "nope");
    await page.press("#key", "Enter");
    await say(page, "key-text", /does not know this key/);
    await page.fill("#key", key);
    await page.press("#key", "Enter");
    await say(page, "model", new RegExp(model));
    await page.setInputFiles("#file", file);
    assert.equal(await ask(page, sample.question), sample.answer);
    await page.reload();
    await say(page, "model", new RegExp(model));
    assert.equal(await page.locator("#key-dialog").isVisible(), false);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("pinhole-key")), key);
    await close();
    await guarded.stop();
  },
  async "a server that has gone"() {
    const other = await serve();
    const { page, close } = await openPage(other.url, { expected: [/ERR_CONNECTION_REFUSED/] });
    await say(page, "model", new RegExp(model));
    await other.stop();
    await page.fill("#question", "anybody?");
    await page.click("#ask");
    assert.match(await errorOf(page), /does not answer/);
    await close();
  },
  async "the policy keeps the page to this server"() {
    const reply = await fetch(server.url + "/");
    assert.match(reply.headers.get("content-security-policy"), /^default-src 'none'/);
    assert.equal(reply.headers.get("content-type"), "text/html; charset=utf-8");
    const { page, context } = await openPage(server.url, { expected: [/./] });
    const reached = [];
    await context.route(/example\.org/, (route) => {
      reached.push(route.request().url());
      return route.abort();
    });
    const blocked = await page.evaluate(async () => {
      const violation = new Promise((resolve) => document.addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective)));
      await fetch("https://example.org/").catch(() => {});
      return violation;
    });
    assert.equal(blocked, "connect-src");
    assert.deepEqual(reached, []);
    await context.close();
  },
});
await browser.close();
await server.stop();
process.exit(failed ? 1 : 0);
