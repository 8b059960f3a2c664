// The official OpenAI client, unchanged, through Postern: only the base URL and the key are set. It makes one call of
// every kind, then provokes every error a customer can meet, and prints one line of JSON with what happened. It ends with
// status 1 when anything came out otherwise than OpenAI's client promises.
//
//	node client.mjs [calls] [errors]        default: both
import OpenAI from "openai";

const env = process.env;
const model = env.POSTERN_MODEL ?? "small";
const embeddingModel = env.POSTERN_EMBEDDING_MODEL ?? "embedding";
const parts = process.argv.length > 2 ? process.argv.slice(2) : ["calls", "errors"];

const result = { calls: [], totals: {}, errors: {}, failures: [] };

function connect(apiKey) {
  return new OpenAI({ apiKey, baseURL: `${env.POSTERN_URL}/v1`, maxRetries: 0, timeout: 60_000 });
}

function check(name, condition, got) {
  if (!condition) result.failures.push({ check: name, got });
}

// count notes what a call used, in the units of the ledger: cached and audio tokens are no input, reasoning no output.
// inferred marks a call whose reply says no usage and whose twin, the same request, did.
function count(name, usage, inferred = false) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const reasoning = usage.completion_tokens_details?.reasoning_tokens ?? 0;
  const units = {
    input: usage.prompt_tokens - cached,
    cached,
    output: (usage.completion_tokens ?? 0) - reasoning,
    reasoning,
    request: 1,
  };
  const call = { name, units };
  if (inferred) call.inferred = true;
  if (usage.postern_receipt) call.receipt = usage.postern_receipt;
  result.calls.push(call);
  for (const [unit, n] of Object.entries(units)) result.totals[unit] = (result.totals[unit] ?? 0) + n;
}

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city.",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

async function plain(client) {
  const { data, response } = await client.chat.completions
    .create({ model, messages: [{ role: "user", content: "Say hello to Ada." }] })
    .withResponse();
  check("plain text", data.choices[0].message.content?.length > 0, data);
  check("plain model", data.model === model, data.model);
  check("plain total", data.usage?.total_tokens === data.usage?.prompt_tokens + data.usage?.completion_tokens, data.usage);
  result.receipt_header = response.headers.get("postern-receipt");
  count("chat", data.usage);
}

async function streamed(client) {
  const request = { model, stream: true, messages: [{ role: "user", content: "Count to three, then greet everybody here." }] };
  const read = async (stream) => {
    let text = "", usage = null, chunks = 0, members = 0;
    for await (const chunk of stream) {
      chunks++;
      text += chunk.choices[0]?.delta?.content ?? "";
      if ("usage" in chunk) members++;
      usage = chunk.usage ?? usage;
      check("streamed model", chunk.model === model, chunk.model);
    }
    return { text, usage, chunks, members };
  };
  const asked = await read(await client.chat.completions.create({ ...request, stream_options: { include_usage: true } }));
  check("streamed usage", asked.usage !== null && asked.members === asked.chunks, asked);
  count("chat streamed, usage asked for", asked.usage);
  const unasked = await read(await client.chat.completions.create(request));
  check("no usage unless asked for", unasked.usage === null && unasked.members === 0, unasked);
  check("one chunk less", unasked.chunks === asked.chunks - 1, [unasked.chunks, asked.chunks]);
  check("the same text", unasked.text === asked.text && asked.text.length > 0, [unasked.text, asked.text]);
  count("chat streamed", asked.usage, true);
  const helper = client.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
  const final = await helper.finalChatCompletion();
  check("stream helper", final.choices[0].message.content === asked.text, final);
  count("chat streamed by the helper", final.usage);
}

async function withTools(client) {
  const messages = [{ role: "user", content: "Ask get_weather how it is in Paris." }];
  const first = await client.chat.completions.create({ model, messages, tools });
  const call = first.choices[0].message.tool_calls?.[0];
  check("tool call", call?.function.name === "get_weather" && first.choices[0].finish_reason === "tool_calls", first);
  check("tool arguments", typeof JSON.parse(call?.function.arguments ?? "{}").city === "string", call);
  count("chat with tools", first.usage);
  messages.push(first.choices[0].message, { role: "tool", tool_call_id: call?.id, content: "Sunny, 21 degrees." });
  const second = await client.chat.completions.create({ model, messages, tools });
  check("tool result", second.choices[0].message.content?.includes("21"), second);
  count("chat with a tool's result", second.usage);

  let streams = 0;
  const runner = client.chat.completions.runTools({
    model,
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: "user", content: "Ask get_weather how it is in Rome." }],
    tools: [
      { type: "function", function: { ...tools[0].function, parse: JSON.parse, function: ({ city }) => `Rain in ${city}.` } },
    ],
  });
  runner.on("chatCompletion", (completion) => {
    streams++;
    count("chat with tools, streamed", completion.usage);
  });
  const text = await runner.finalContent();
  check("tools streamed", streams === 2 && text?.includes("Rain"), [streams, text]);
}

async function embeddings(client) {
  const { data, usage, model: name } = await client.embeddings.create({ model: embeddingModel, input: ["Hello", "there", "Hello"] });
  const length = Math.hypot(...data[0].embedding);
  check("embeddings", data.length === 3 && data[0].embedding.length > 0 && Math.abs(length - 1) < 1e-3, [data.length, length]);
  check("embeddings are stable", String(data[0].embedding) === String(data[2].embedding) && String(data[0].embedding) !== String(data[1].embedding));
  check("embeddings model", name === embeddingModel, name);
  count("embeddings", usage);
  const floats = await client.embeddings.create({ model: embeddingModel, input: "Hello", encoding_format: "float" });
  const far = Math.max(...floats.data[0].embedding.map((f, i) => Math.abs(f - data[0].embedding[i])));
  check("embeddings as floats", far < 1e-6, far);
  count("embeddings as floats", floats.usage);
}

async function models(client) {
  result.models = [];
  for await (const m of client.models.list()) result.models.push(m.id);
  const name = result.models.includes(model) ? model : result.models[0];
  const one = await client.models.retrieve(name);
  check("one model", one.id === name && one.object === "model", one);
}

// provoke notes the error a call ends with.
async function provoke(name, wanted, call) {
  try {
    const reply = await call();
    result.errors[name] = null;
    check(name, false, reply);
  } catch (error) {
    const { status, code, type, param, message } = error;
    result.errors[name] = {
      class: error.constructor.name, status, code, type, param, message, retry_after: error.headers?.get("retry-after") ?? null,
    };
    check(name, wanted(error), result.errors[name]);
  }
}

const hello = (client, more = {}) =>
  client.chat.completions.create({ model, max_tokens: 1, messages: [{ role: "user", content: "Hello." }], ...more });

async function errors(client) {
  await provoke("bad key", (e) => e instanceof OpenAI.AuthenticationError && e.code === "invalid_api_key", () => hello(connect("not-a-key")));
  await provoke("unknown model", (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found", () => hello(client, { model: "no-such-model" }));
  await provoke("unknown model by name", (e) => e instanceof OpenAI.NotFoundError, () => client.models.retrieve("no-such-model"));
  await provoke("bad parameter", (e) => e instanceof OpenAI.BadRequestError && e.param === "n", () => hello(client, { n: 1000 }));
  if (env.POSTERN_POOR_KEY) {
    // 402 has no class of its own; what matters is that the client does not repeat the call.
    await provoke("no balance", (e) => e instanceof OpenAI.APIError && e.status === 402 && e.code === "insufficient_quota", () =>
      hello(connect(env.POSTERN_POOR_KEY)));
  }
  if (env.POSTERN_LIMITED_KEY) {
    const limited = connect(env.POSTERN_LIMITED_KEY);
    await provoke("over the limit", (e) => e instanceof OpenAI.RateLimitError && e.code === "rate_limit_exceeded", async () => {
      for (let i = 0; i < Number(env.POSTERN_LIMITED_CALLS ?? 500); i++) {
        const reply = await hello(limited);
        count("chat below the limit", reply.usage);
      }
      return "never limited";
    });
  }
}

const client = connect(env.POSTERN_KEY ?? "none");
for (const part of parts) {
  const steps = { calls: [plain, streamed, withTools, embeddings, models], errors: [errors] }[part];
  if (!steps) throw new Error(`there are the parts "calls" and "errors", not "${part}"`);
  for (const step of steps) {
    try {
      await step(client);
    } catch (error) {
      result.failures.push({ check: step.name, got: String(error?.stack ?? error) });
    }
  }
}
console.log(JSON.stringify(result));
process.exitCode = result.failures.length === 0 ? 0 : 1;
