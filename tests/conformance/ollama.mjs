// The published npm client `ollama` against pinhole serve.
import { Ollama } from "ollama";
import { assert, model, picture, run, sample, serve, untilIdle } from "./support.mjs";

const server = await serve();
const client = new Ollama({ host: server.url });
const image = picture.toString("base64");
const messages = [{ role: "user", content: sample.question, images: [image] }];

const failed = await run({
  async "chat"() {
    const answer = await client.chat({ model, messages });
    assert.equal(answer.message.content, sample.answer);
    assert.equal(answer.done, true);
    assert.equal(answer.done_reason, "stop");
    assert.ok(answer.eval_count > 0 && answer.total_duration > 0);
  },
  async "chat, streamed"() {
    let text = "", last;
    for await (const part of await client.chat({ model, messages, stream: true })) {
      text += part.message.content;
      last = part;
    }
    assert.equal(text, sample.answer);
    assert.equal(last.done, true);
  },
  async "generate with bytes of a picture"() {
    const answer = await client.generate({ model, prompt: sample.question, images: [new Uint8Array(picture)] });
    assert.equal(answer.response, sample.answer);
    let text = "";
    for await (const part of await client.generate({ model, prompt: sample.question, images: [image], stream: true })) {
      text += part.response;
    }
    assert.equal(text, sample.answer);
  },
  async "raw"() {
    const answer = await client.generate({ model, prompt: "Hello", raw: true, options: { num_predict: 3 } });
    assert.ok(answer.eval_count <= 3);
  },
  async "formats"() {
    const schema = { type: "object", properties: { number: { type: "integer", minimum: 0, maximum: 99 } }, required: ["number"] };
    const answer = await client.chat({ model, messages, format: schema });
    assert.ok(Number.isInteger(JSON.parse(answer.message.content).number));
  },
  async "options"() {
    const ask = () => client.chat({
      model, messages: [{ role: "user", content: "List all boxes." }],
      options: { temperature: 1.5, seed: 4, num_predict: 5, num_ctx: 512, top_k: 20, num_thread: 2 },
    });
    const answer = await ask();
    assert.ok(answer.eval_count <= 5);
    assert.equal((await ask()).message.content, answer.message.content);
    await assert.rejects(client.chat({ model, messages, options: { num_ctx: 1 << 20 } }), /num_ctx/);
  },
  async "list, show, ps, version"() {
    const { models } = await client.list();
    assert.deepEqual(models.map((m) => m.name), [model]);
    assert.match(models[0].digest, /^[0-9a-f]{64}$/);
    const shown = await client.show({ model });
    assert.ok(shown.capabilities.includes("vision"));
    const running = await client.ps();
    assert.equal(running.models[0].name, model);
    assert.equal(running.models[0].context_length, 1024);
    assert.ok(!Number.isNaN(Date.parse(running.models[0].expires_at)));
    assert.match((await client.version()).version, /^\d+\.\d+/);
  },
  async "keep_alive unloads and loads"() {
    const unloaded = await client.generate({ model, prompt: "", keep_alive: 0 });
    assert.equal(unloaded.done_reason, "unload");
    assert.deepEqual((await client.ps()).models, []);
    const answer = await client.chat({ model, messages, keep_alive: "5m" });
    assert.equal(answer.message.content, sample.answer);
    const left = Date.parse((await client.ps()).models[0].expires_at) - Date.now();
    assert.ok(left > 200_000 && left <= 301_000, `${left} ms`);
    await client.generate({ model, prompt: "", keep_alive: -1 });
    assert.ok(Date.parse((await client.ps()).models[0].expires_at) - Date.now() > 1e9);
  },
  async "pull"() {
    assert.equal((await client.pull({ model })).status, "success");
    let last;
    for await (const part of await client.pull({ model, stream: true })) last = part;
    assert.equal(last.status, "success");
    await assert.rejects(client.pull({ model: "llava" }), /downloads nothing/);
  },
  async "errors"() {
    await assert.rejects(client.chat({ model: "other", messages }), (e) => e.status_code === 404 && /other/.test(e.message));
    await assert.rejects(client.chat({ model, messages: [{ role: "user", content: "x", images: ["bm90IGFuIGltYWdl"] }] }),
      (e) => e.status_code === 400);
    await assert.rejects(client.chat({ model, messages: [{ role: "user", content: "word ".repeat(5000) }] }),
      (e) => e.status_code === 400 && /tokens/.test(e.message));
  },
  async "an aborted stream frees the model"() {
    const stream = await client.chat({
      model, messages: [{ role: "user", content: "List all boxes." }], stream: true, options: { temperature: 2, seed: 3 },
    });
    await assert.rejects(async () => {
      for await (const part of stream) {
        if (part.message.content) stream.abort();
      }
    }, { name: "AbortError" });
    await untilIdle(server.url);
  },
});
await server.stop();
process.exit(failed ? 1 : 0);
