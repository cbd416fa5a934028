// The published npm client `openai` against pinhole serve.
import OpenAI from "openai";
import { assert, dataUrl, key, model, run, sample, serve, untilIdle } from "./support.mjs";

const server = await serve("--api-key", key, "--alias", "gpt-4o-mini");
const client = new OpenAI({ baseURL: server.url + "/v1", apiKey: key, maxRetries: 0 });
const withRetries = new OpenAI({ baseURL: server.url + "/v1", apiKey: key, maxRetries: 2 });
const messages = [{
  role: "user",
  content: [{ type: "image_url", image_url: { url: dataUrl } }, { type: "text", text: sample.question }],
}];
const schema = {
  type: "object", additionalProperties: false, required: ["number"],
  properties: { number: { type: "integer", minimum: 0, maximum: 99 } },
};
const tools = [{
  type: "function",
  function: {
    name: "click", description: "Clicks a box.",
    parameters: { type: "object", properties: { box: { type: "integer", minimum: 0, maximum: 99 } }, required: ["box"] },
  },
}];

const failed = await run({
  async "chat with a picture"() {
    const answer = await client.chat.completions.create({ model, messages });
    assert.equal(answer.choices[0].message.content, sample.answer);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },
  async "an alias"() {
    const answer = await client.chat.completions.create({ model: "gpt-4o-mini", messages });
    assert.equal(answer.choices[0].message.content, sample.answer);
  },
  async "stream with usage"() {
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true },
    });
    let text = "", role, reason, usage;
    for await (const chunk of stream) {
      role ??= chunk.choices[0]?.delta.role;
      text += chunk.choices[0]?.delta.content ?? "";
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
      if (chunk.usage) assert.deepEqual(chunk.choices, []);
    }
    assert.deepEqual([text, role, reason], [sample.answer, "assistant", "stop"]);
    assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0);
  },
  async "the stream helper accumulates"() {
    const runner = client.chat.completions.stream({ model, messages });
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.content, sample.answer);
    assert.equal(await runner.finalContent(), sample.answer);
  },
  async "several choices, streamed"() {
    const runner = client.chat.completions.stream({ model, messages, n: 2 });
    const final = await runner.finalChatCompletion();
    assert.deepEqual(final.choices.map((c) => [c.index, c.message.content]),
      [[0, sample.answer], [1, sample.answer]]);
  },
  async "logprobs"() {
    const answer = await client.chat.completions.create({ model, messages, logprobs: true, top_logprobs: 3 });
    const tokens = answer.choices[0].logprobs.content;
    assert.equal(tokens.map((t) => t.token).join(""), sample.answer);
    for (const token of tokens) {
      assert.equal(token.top_logprobs.length, 3);
      assert.equal(Buffer.from(token.bytes).toString(), token.token);
      assert.ok(token.logprob <= 0);
    }
    const runner = client.chat.completions.stream({ model, messages, logprobs: true, top_logprobs: 3 });
    const streamed = (await runner.finalChatCompletion()).choices[0].logprobs.content;
    assert.deepEqual(streamed.map((t) => t.token), tokens.map((t) => t.token));
  },
  async "a JSON schema"() {
    const answer = await client.chat.completions.create({
      model, messages, response_format: { type: "json_schema", json_schema: { name: "n", strict: true, schema } },
    });
    assert.ok(Number.isInteger(JSON.parse(answer.choices[0].message.content).number));
  },
  async "any JSON object"() {
    const answer = await client.chat.completions.create({
      model, messages, response_format: { type: "json_object" }, max_tokens: 200, temperature: 1, seed: 1,
    });
    if (answer.choices[0].finish_reason === "stop") {
      assert.equal(typeof JSON.parse(answer.choices[0].message.content), "object");
    }
  },
  async "a required tool call and its result"() {
    const answer = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    assert.equal(call.function.name, "click");
    assert.ok(Number.isInteger(JSON.parse(call.function.arguments).box));
    const next = await client.chat.completions.create({
      model, tools, max_tokens: 3,
      messages: [...messages, answer.choices[0].message, { role: "tool", tool_call_id: call.id, content: "done" }],
    });
    assert.equal(next.choices.length, 1);
  },
  async "a named tool, streamed"() {
    const runner = client.chat.completions.stream({
      model, messages, tools, tool_choice: { type: "function", function: { name: "click" } },
    });
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.tool_calls[0].function.name, "click");
    assert.ok(Number.isInteger(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).box));
  },
  async "stop and max_tokens"() {
    const short = await client.chat.completions.create({
      model, messages: [{ role: "user", content: "List all boxes." }], max_completion_tokens: 2,
    });
    assert.equal(short.choices[0].finish_reason, "length");
    assert.equal(short.usage.completion_tokens, 2);
    const stopped = await client.chat.completions.create({ model, messages, stop: [sample.answer] });
    assert.equal(stopped.choices[0].message.content, "");
  },
  async "the same seed, the same answer"() {
    const ask = () => client.chat.completions.create({
      model, messages: [{ role: "user", content: "List all boxes." }], temperature: 2, seed: 5, max_tokens: 20,
    });
    assert.equal((await ask()).choices[0].message.content, (await ask()).choices[0].message.content);
  },
  async "completions"() {
    const answer = await client.completions.create({ model, prompt: "Hello", max_tokens: 4, logprobs: 2 });
    assert.equal(answer.object, "text_completion");
    assert.ok(answer.usage.completion_tokens <= 4);
    let text = "";
    for await (const chunk of await client.completions.create({ model, prompt: "Hello", max_tokens: 4, stream: true })) {
      text += chunk.choices[0]?.text ?? "";
    }
    assert.equal(text, answer.choices[0].text);
  },
  async "responses"() {
    const input = [{
      role: "user",
      content: [{ type: "input_image", image_url: dataUrl, detail: "auto" }, { type: "input_text", text: sample.question }],
    }];
    const answer = await client.responses.create({ model, input });
    assert.equal(answer.output_text, sample.answer);
    assert.equal(answer.status, "completed");
    const stream = client.responses.stream({ model, input });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(text, sample.answer);
    assert.equal(final.output_text, sample.answer);
    const formatted = await client.responses.create({
      model, input, text: { format: { type: "json_schema", name: "n", schema, strict: true } },
    });
    assert.ok(Number.isInteger(JSON.parse(formatted.output_text).number));
  },
  async "responses with a tool"() {
    const flat = [{ type: "function", ...tools[0].function, strict: false }];
    const input = [{ role: "user", content: sample.question }];
    const answer = await client.responses.create({ model, input, tools: flat, tool_choice: "required" });
    assert.equal(answer.output[0].type, "function_call");
    assert.equal(answer.output[0].name, "click");
    const streamed = await client.responses.stream({ model, input, tools: flat, tool_choice: "required" }).finalResponse();
    assert.ok(Number.isInteger(JSON.parse(streamed.output[0].arguments).box));
  },
  async "models"() {
    const list = await client.models.list();
    assert.deepEqual(list.data.map((m) => m.id), [model]);
    assert.equal((await client.models.retrieve(model)).object, "model");
    await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
  },
  async "errors have the client's classes"() {
    const bad = (body) => client.chat.completions.create({ model, messages, ...body });
    await assert.rejects(bad({ model: "other" }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
    await assert.rejects(bad({ temperature: 9 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "temperature");
    await assert.rejects(bad({ logit_bias: { 5: 1 } }), (e) => e instanceof OpenAI.BadRequestError && e.param === "logit_bias");
    await assert.rejects(bad({ messages: [] }), OpenAI.BadRequestError);
    const stranger = new OpenAI({ baseURL: server.url + "/v1", apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), (e) => e instanceof OpenAI.AuthenticationError && e.code === "invalid_api_key");
  },
  async "what does not fit is not tried again"() {
    const before = Date.now();
    await assert.rejects(
      withRetries.chat.completions.create({ model, messages: [{ role: "user", content: "word ".repeat(5000) }] }),
      (e) => e instanceof OpenAI.BadRequestError && e.code === "context_length_exceeded" &&
        /\d+ tokens/.test(e.message) && e.headers.get("x-should-retry") === "false");
    assert.ok(Date.now() - before < 5000);
  },
  async "an aborted stream frees the model"() {
    const stream = await client.chat.completions.create({
      model, messages: [{ role: "user", content: "List all boxes." }], stream: true, temperature: 2, seed: 3,
    });
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content) break; // the client aborts
    }
    await untilIdle(server.url);
    const controller = new AbortController();
    const request = client.chat.completions.create({ model, messages }, { signal: controller.signal });
    controller.abort();
    await assert.rejects(request, OpenAI.APIUserAbortError);
    await untilIdle(server.url);
  },
  async "many at once"() {
    const answers = await Promise.all(Array.from({ length: 16 }, () => client.chat.completions.create({ model, messages })));
    for (const answer of answers) assert.equal(answer.choices[0].message.content, sample.answer);
  },
});
await server.stop();
process.exit(failed ? 1 : 0);
