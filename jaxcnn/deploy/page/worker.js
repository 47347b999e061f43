// The network, in a thread of its own: images in, answers out.

import { placed } from "./pixels.js";

const ANSWERS = 5;
let facts, session, ort;

/** Where the network runs: WebGPU if the browser has a graphics processor for it, else WebAssembly. */
async function onWebGpu() {
  const asked = new URLSearchParams(self.location.search).get("on");
  if (asked === "wasm" || facts.quantize === "int8" || !self.navigator.gpu) return false;
  const adapter = await self.navigator.gpu.requestAdapter().catch(() => null);
  return adapter !== null && (asked === "webgpu" || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
}

async function open(model, provider) {
  ort = await import(provider === "webgpu" ? "./runtime/ort.webgpu.min.mjs" : "./runtime/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("runtime/", self.location).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(self.navigator.hardwareConcurrency || 1, 8) : 1;
  session = await ort.InferenceSession.create(model, { executionProviders: [provider] });
  await outputs(new Uint8Array(facts.image_shape.reduce((a, b) => a * b))); // the first run plans and compiles
}

async function load() {
  facts = await (await fetched("network.json")).json();
  const model = await (await fetched("model.onnx")).arrayBuffer();
  if (self.crypto.subtle) {
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", model));
    const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== facts.sha256) throw new Error("model.onnx is damaged; copy the folder again");
  }
  let runs = (await onWebGpu()) ? "WebGPU" : "WebAssembly";
  try {
    await open(model, runs === "WebGPU" ? "webgpu" : "wasm");
  } catch (error) {
    if (runs !== "WebGPU") throw error;
    runs = "WebAssembly";
    await open(model, "wasm");
  }
  return { facts, runs, threads: ort.env.wasm.numThreads };
}

async function fetched(name) {
  const reply = await fetch(name, { cache: "no-cache" }).catch(() => null);
  if (!reply?.ok) throw new Error(`${name} of this folder cannot be read`);
  return reply;
}

async function outputs(pixels) {
  const image = new ort.Tensor("uint8", pixels, [1, ...facts.image_shape]);
  const [found] = Object.values(await session.run({ image }));
  const values = Array.from(await found.getData());
  found.dispose();
  return values;
}

/** The most probable classes; for several labels, those above their thresholds are marked. */
function answer(logits) {
  const values = logits.map((value) => value / (facts.temperature ?? 1));
  let probabilities;
  if (facts.task === "multilabel") probabilities = values.map((value) => 1 / (1 + Math.exp(-value)));
  else {
    const most = Math.max(...values), powers = values.map((value) => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b);
    probabilities = powers.map((power) => Math.fround(power / sum));
  }
  const all = probabilities.map((probability, k) => ({
    label: facts.class_names[k], probability, found: facts.thresholds ? probability >= facts.thresholds[k] : null,
  }));
  all.sort((a, b) => b.probability - a.probability);
  return all.filter((one, k) => k < ANSWERS || one.found);
}

/** What a detector has found, the best first: label, number of the class, score, and x, y, width, height in the image. */
function boxes(values, [scaleX, scaleY, left, top]) {
  const all = [];
  for (let i = 0; i + 5 < values.length && values[i + 4] > 0; i += 6) {
    const [x, right] = [values[i], values[i + 2]].map((place) => (place - left) / scaleX);
    const [y, bottom] = [values[i + 1], values[i + 3]].map((place) => (place - top) / scaleY);
    const number = values[i + 5];
    all.push({ label: facts.class_names[number], number, score: values[i + 4], box: [x, y, right - x, bottom - y] });
  }
  return all;
}

async function look(given) {
  const { pixels, sides, frame } = await placed(given, facts), began = performance.now();
  const values = await outputs(pixels);
  const told = facts.task === "detection" ? { boxes: boxes(values, frame), sides } : { top: answer(values) };
  return { ...told, outputs: values, pixels, milliseconds: performance.now() - began };
}

const loading = load();
let queue = loading.catch(() => {});
loading.then((loaded) => self.postMessage({ loaded }), (error) => self.postMessage({ failed: error.message }));
self.onmessage = ({ data: { id, image } }) => {
  queue = queue.then(() => loading).then(() => look(image)).then(
    (result) => self.postMessage({ id, result }),
    (error) => self.postMessage({ id, error: error.message }),
  );
};
