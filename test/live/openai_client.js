// What the official `openai` client makes of the server: a function for each thing it is asked, run by test_openai_client.py.
// Arguments: base URL, key, name. Prints what came of it as JSON.
const OpenAI = require("openai");

const [base, key, name] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 30000 });
const messages = [{ role: "user", content: "say something" }];
const chat = { model: "talk", messages, max_tokens: 8, temperature: 0 };

// What kind of error the client made of an answer.
async function refusal(promise) {
  try {
    await promise;
    return null;
  } catch (e) {
    return { kind: e.constructor.name, status: e.status, param: e.param, code: e.code, type: e.type };
  }
}

const actions = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids, one: await client.models.retrieve("talk") };
  },

  async chat() {
    const answer = await client.chat.completions.create(chat);
    return { text: answer.choices[0].message.content, usage: answer.usage, finish: answer.choices[0].finish_reason };
  },

  async stream() {
    const stream = await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } });
    let text = "", usage = null, chunks = 0;
    for await (const chunk of stream) {
      chunks++;
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    return { text, usage, chunks };
  },

  // The helper that puts a stream together again.
  async runner() {
    const stream = client.beta.chat.completions.stream(chat);
    return { text: (await stream.finalChatCompletion()).choices[0].message.content };
  },

  async completion() {
    const answer = await client.completions.create({ model: "talk", prompt: "one", max_tokens: 4, temperature: 0 });
    const stream = await client.completions.create({ model: "talk", prompt: "one", max_tokens: 4, temperature: 0, echo: true, stream: true });
    let echo = "";
    for await (const chunk of stream) echo += chunk.choices[0]?.text ?? "";
    return { text: answer.choices[0].text, object: answer.object, echo };
  },

  // Asks for base64 by itself and unpacks it.
  async embeddings() {
    const packed = await client.embeddings.create({ model: "talk", input: ["one", "two"] });
    const plain = await client.embeddings.create({ model: "talk", input: ["one", "two"], encoding_format: "float" });
    return { packed: packed.data.map((d) => d.embedding), plain: plain.data.map((d) => d.embedding) };
  },

  // A model that another tenant lends, and an adapter for it, by either of its names.
  async voices() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    const texts = {};
    for (const model of ["novelist", "cynic", "novelist:cynic"]) {
      const question = [{ role: "user", content: "What is love?" }];
      const stream = await client.chat.completions.create({ model, messages: question, max_tokens: 24, temperature: 0, stream: true });
      texts[model] = "";
      for await (const chunk of stream) texts[model] += chunk.choices[0]?.delta?.content ?? "";
    }
    return { ids, texts, foreign: await refusal(client.chat.completions.create({ ...chat, model: "scribe" })) };
  },

  async errors() {
    const stranger = new OpenAI({ baseURL: base, apiKey: "bh_" + "0".repeat(16) + "_" + "0".repeat(43), maxRetries: 0 });
    return {
      type: await refusal(client.chat.completions.create({ ...chat, temperature: "hot" })),
      missing: await refusal(client.chat.completions.create({ model: "talk" })),
      model: await refusal(client.chat.completions.create({ ...chat, model: "nobody" })),
      key: await refusal(stranger.models.list()),
      stream: await refusal(client.chat.completions.create({ ...chat, stream: true, n: 0 })),
    };
  },

  // Goes away in the middle of answers, streams and not.
  async aborts() {
    let seen = 0;
    for (let i = 0; i < 80; i++) {
      const stream = await client.chat.completions.create({ ...chat, stream: true, max_tokens: 400, ignore_eos: true });
      for await (const chunk of stream) {
        seen++;
        if (chunk.choices[0].delta.content) break; // ends the request
      }
    }
    const stop = new AbortController();
    const long = client.chat.completions.create({ ...chat, max_tokens: 400, n: 8, ignore_eos: true }, { signal: stop.signal });
    setTimeout(() => stop.abort(), 20);
    const aborted = await refusal(long);
    return { seen, aborted, after: (await actions.chat()).text };
  },

  // More than the rate allows: the client waits as long as it is told, and comes again.
  async retries() {
    const patient = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 5 });
    const once = await refusal(Promise.all([1, 2, 3].map(() => client.chat.completions.create(chat))));
    const texts = await Promise.all([1, 2].map(async () => (await patient.chat.completions.create(chat)).choices[0].message.content));
    return { once, texts };
  },
};

actions[name]().then(
  (result) => console.log(JSON.stringify(result)),
  (error) => {
    console.error(error);
    process.exit(1);
  });
