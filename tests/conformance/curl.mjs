// curl against pinhole serve: forms, Expect, chunked bodies, aborts, preflights, keys, signals.
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, dataUrl, folder, key, model, run, sample, serve, untilIdle } from "./support.mjs";

const server = await serve("--max-body", "1M", "--cors", "https://app.example", "--allow-host", "models.lan");
const scratch = mkdtempSync(join(tmpdir(), "pinhole-curl-"));
const image = join(folder, sample.image);

function curl(...args) {
  return new Promise((resolve) => {
    const child = spawn("curl", ["-sS", "--max-time", "60", ...args]);
    let out = "", errors = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (errors += data));
    child.on("exit", (code) => resolve({ out, errors, code }));
  });
}
async function status(...args) {
  const { out } = await curl("-o", "/dev/null", "-w", "%{http_code}", ...args);
  return Number(out);
}
function file(name, content) {
  const path = join(scratch, name);
  writeFileSync(path, content);
  return path;
}
const chat = (extra = {}) => JSON.stringify({
  model, ...extra,
  messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: dataUrl } }, { type: "text", text: sample.question }] }],
});

const failed = await run({
  async "analyze"() {
    const { out } = await curl("-F", `prompt=${sample.question}`, "-F", `image=@${image}`, server.url + "/api/v1/analyze");
    const json = JSON.parse(out);
    assert.deepEqual([json.model, json.response, json.done], [model, sample.answer, true]);
    const text = file("no.png", "this is text");
    assert.equal(await status("-F", "prompt=x", "-F", `image=@${text}`, server.url + "/api/v1/analyze"), 400);
    assert.equal(await status("-F", "prompt=x", server.url + "/api/v1/analyze"), 400);
  },
  async "a body with Expect, as curl sends large ones"() {
    const body = file("chat.json", chat({ user: "x".repeat(200_000) }));
    const { out } = await curl("-H", "Expect: 100-continue", "-H", "Content-Type: application/json",
      "--data-binary", `@${body}`, server.url + "/v1/chat/completions");
    assert.equal(JSON.parse(out).choices[0].message.content, sample.answer);
  },
  async "a chunked body, and -d without a content type"() {
    const body = file("chat.json", chat());
    const chunked = await curl("-H", "Transfer-Encoding: chunked", "--data-binary", `@${body}`, server.url + "/v1/chat/completions");
    assert.equal(JSON.parse(chunked.out).choices[0].message.content, sample.answer);
    const plain = await curl("-d", `@${body}`, server.url + "/v1/chat/completions");
    assert.equal(JSON.parse(plain.out).choices[0].message.content, sample.answer);
  },
  async "a stream comes in pieces that end"() {
    const body = file("chat.json", chat({ stream: true }));
    const { out, code } = await curl("-N", "-d", `@${body}`, server.url + "/v1/chat/completions");
    assert.equal(code, 0);
    assert.ok(out.endsWith("data: [DONE]\n\n"));
  },
  async "broken bodies"() {
    const send = (body) => status("-d", `@${file("broken.json", body)}`, server.url + "/v1/chat/completions");
    assert.equal(await send("{"), 400);
    assert.equal(await send(chat().slice(0, -500)), 400);
    assert.equal(await send(chat().replace(dataUrl, dataUrl.slice(0, -41) + "*")), 400);
    assert.equal(await send(chat().replace(dataUrl, dataUrl.slice(0, 2000))), 400);
    assert.equal(await send("[".repeat(100_000)), 400);
    assert.equal(await send("x".repeat(2_000_000)), 413);
    assert.equal(await status("-H", "Content-Encoding: gzip", "-d", "x", server.url + "/v1/chat/completions"), 415);
  },
  async "addresses and files are not read"() {
    for (const url of ["http://127.0.0.1:1/a.png", "https://example.org/a.png", "file:///etc/passwd"]) {
      const { out } = await curl("-d", `@${file("url.json", chat().replace(dataUrl, url))}`, server.url + "/v1/chat/completions");
      assert.equal(JSON.parse(out).error.param, "messages[0].content[0].image_url.url", url);
    }
  },
  async "a client that gives up frees the model"() {
    const long = file("long.json", JSON.stringify({
      model, stream: true, temperature: 2, seed: 3, messages: [{ role: "user", content: "List all boxes." }],
    }));
    const child = spawn("curl", ["-sSN", "-d", `@${long}`, server.url + "/v1/chat/completions"]);
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.kill("SIGKILL");
    await untilIdle(server.url);
  },
  async "web pages"() {
    const preflight = await curl("-i", "-X", "OPTIONS", "-H", "Origin: https://app.example",
      "-H", "Access-Control-Request-Method: POST", "-H", "Access-Control-Request-Headers: authorization,x-stainless-lang",
      server.url + "/v1/chat/completions");
    assert.match(preflight.out, /^HTTP\/1.1 204/);
    assert.match(preflight.out, /Access-Control-Allow-Origin: https:\/\/app.example/);
    assert.match(preflight.out, /x-stainless-lang/);
    const read = await curl("-i", "-H", "Origin: https://app.example", server.url + "/v1/models");
    assert.match(read.out, /Access-Control-Allow-Origin: https:\/\/app.example/);
    assert.equal(await status("-H", "Origin: https://evil.example", server.url + "/v1/models"), 403);
    assert.equal(await status("-H", "Host: evil.example", server.url + "/v1/models"), 421);
    assert.equal(await status("-H", "Host: models.lan", server.url + "/v1/models"), 200);
  },
  async "methods and places"() {
    assert.equal(await status("-I", server.url + "/"), 200);
    assert.equal(await status(server.url + "/v1/chat/completions"), 405);
    assert.equal(await status(server.url + "/nothing"), 404);
    assert.equal(await status("--path-as-is", server.url + "/../../etc/passwd"), 404);
    assert.equal(await status("--http1.0", server.url + "/health"), 200);
  },
  async "a receipt"() {
    const { out } = await curl("-d", `@${file("chat.json", chat())}`, server.url + "/v1/plan");
    const plan = JSON.parse(out);
    assert.ok(plan.picture_tokens > 0 && plan.prompt_tokens > plan.picture_tokens);
    assert.ok(plan.memory_bytes.peak > 0);
  },
  async "keys, and the end"() {
    const guarded = await serve("--api-key", key, "--drain-timeout", "20");
    assert.equal(await status(guarded.url + "/v1/models"), 401);
    assert.equal(await status("-H", `Authorization: Bearer ${key}`, guarded.url + "/v1/models"), 200);
    assert.equal(await status("-H", "Authorization: Bearer nope", guarded.url + "/v1/models"), 401);
    assert.equal(await status(guarded.url + "/health"), 200);
    // What runs when the server is told to end is finished.
    const running = curl("-H", `Authorization: Bearer ${key}`, "-d", `@${file("chat.json", chat({ n: 8 }))}`,
      guarded.url + "/v1/chat/completions");
    await new Promise((resolve) => setTimeout(resolve, 30));
    const { out } = (await Promise.all([running, guarded.stop()]))[0];
    if (out) assert.equal(JSON.parse(out).choices.length, 8);
  },
});
rmSync(scratch, { recursive: true });
await server.stop();
process.exit(failed ? 1 : 0);
