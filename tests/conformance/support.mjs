// What the conformance tests share: a server of the bundled model, its samples, and checks.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";

export { assert };
export const program = process.env.PINHOLE_PROGRAM;
export const source = process.env.PINHOLE_SOURCE;
export const folder = join(source, "models/pinhole-mini");
export const key = "sk-conformance";
export const model = "pinhole-mini-f16";

// The first sample that the reference (transformers) answers rightly.
export const sample = readFileSync(join(folder, "samples.jsonl"), "utf8")
  .split("\n").filter(Boolean).map((line) => JSON.parse(line)).find((s) => s.correct);
export const picture = readFileSync(join(folder, sample.image));
export const dataUrl = "data:image/png;base64," + picture.toString("base64");

export async function serve(...args) {
  const child = spawn(program, ["serve", "--port", "0", "--ctx", "1024", ...args],
    { stdio: ["ignore", "pipe", "pipe"] });
  let errors = "";
  child.stderr.on("data", (data) => (errors += data));
  const ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve(code ?? signal)));
  const url = await new Promise((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
      const found = out.match(/listening on (http:\S+)/);
      if (found) resolve(found[1]);
    });
    ended.then((code) => reject(new Error(`the server ended with ${code}: ${errors}`)));
  });
  for (let i = 0; i < 600; ++i) {
    const health = await fetch(url + "/health");
    if (health.status === 200) break;
    assert.equal(health.status, 503);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    url,
    async stop() {
      child.kill("SIGTERM");
      const code = await ended;
      assert.equal(code, 0, `the server ended with ${code}: ${errors}`);
    },
  };
}

// Waits until the server has no request in the making.
export async function untilIdle(url) {
  for (let i = 0; i < 400; ++i) {
    const text = await (await fetch(url + "/metrics", { headers: { authorization: `Bearer ${key}` } })).text();
    const busy = ["llamacpp:requests_processing", "llamacpp:requests_deferred"]
      .map((name) => Number(text.match(new RegExp(`^${name} (\\S+)$`, "m"))[1]));
    if (busy.every((n) => n === 0)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail("requests go on after their clients have gone");
}

export async function run(cases) {
  let failed = 0;
  for (const [name, test] of Object.entries(cases)) {
    try {
      await test();
      console.log(`ok   ${name}`);
    } catch (error) {
      ++failed;
      console.log(`FAIL ${name}: ${error.stack ?? error}`);
    }
  }
  console.log(`${Object.keys(cases).length - failed} passed, ${failed} failed`);
  return failed;
}
