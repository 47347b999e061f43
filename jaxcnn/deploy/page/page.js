// What a person sees: images come by file, drag, paste and camera, and answers go into a list; boxes lie over the image.

import { draw, forget, offer } from "./boxes.js";

const get = (id) => document.getElementById(id);
const waiting = new Map();
let worker, stream, number = 0, latest = 0, facts;

/** Let the service worker give this page its headers; the page loads a second time for that, once. */
async function isolated() {
  if (self.crossOriginIsolated || !navigator.serviceWorker) return true;
  try {
    await navigator.serviceWorker.register("offline.js");
    await navigator.serviceWorker.ready;
    if (sessionStorage.getItem("reloaded")) return true;
    sessionStorage.setItem("reloaded", "1");
  } catch {
    return true; // private windows may have none: the page works with one thread
  }
  location.reload();
  return false;
}

function start() {
  worker = new Worker(`worker.js${location.search}`, { type: "module" });
  worker.onerror = (event) => tell(`The page could not start: ${event.message ?? "its files cannot be read"}`, true);
  worker.onmessage = ({ data }) => {
    if (data.loaded) show(data.loaded);
    else if (data.failed) tell(`The network could not be loaded: ${data.failed}`, true);
    else {
      waiting.get(data.id)(data);
      waiting.delete(data.id);
    }
  };
}

function show({ facts: told, runs, threads }) {
  facts = told;
  const [height, width, channels] = facts.image_shape;
  get("title").textContent = `${facts.model}: ${facts.class_names.length} ${facts.class_names.length === 1 ? "class" : "classes"}`;
  document.title = get("title").textContent;
  const by = runs === "WebGPU" ? "WebGPU" : `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`;
  get("runs").textContent = `It runs on this device by ${by}. Images do not leave it.`;
  const about = {
    "network": `${facts.model}, step ${facts.step}, ${facts.quantize === "none" ? "float32" : facts.quantize}`,
    "images": `${width} x ${height} pixels, ${channels === 1 ? "grey" : "in colour"}; ${height === width ? { crop: "the centre of others is cut out", pad: "others get black bars", stretch: "others are stretched" }[facts.resize] : "no others"}`,
    "classes": facts.class_names.join(", "),
    "made by": `${facts.made_by}; ONNX Runtime Web ${facts.runtime}`,
  };
  get("about").replaceChildren(...Object.entries(about).flatMap(([term, text]) => [made("dt", term), made("dd", text)]));
  if (facts.task === "detection") offer(facts);
  document.body.classList.add("ready");
  tell(waiting.size ? "Looking …" : "Ready for an image.");
}

function made(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

function tell(text, wrong = false) {
  get("told").textContent = text;
  get("told").classList.toggle("wrong", wrong);
}

function asked(image, transferred = []) {
  const id = ++number;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    worker.postMessage({ id, image }, transferred);
  }).then((reply) => {
    if (id > latest) {
      latest = id;
      return reply.error ? failed(reply.error) : answered(reply.result);
    }
  });
}

function failed(why) {
  get("answers").replaceChildren();
  forget();
  get("seen").hidden = true;
  tell(`This image was not read: ${why}`, true);
}

async function answered({ top, boxes, sides, pixels, milliseconds }) {
  if (boxes) await draw(boxes, sides);
  else get("answers").replaceChildren(...top.map(({ label, probability, found }) => {
    const row = document.createElement("li"), name = made("bdi", label), bar = document.createElement("progress");
    bar.max = 1;
    bar.value = probability;
    bar.setAttribute("aria-label", label);
    row.classList.toggle("found", found === true);
    row.append(name, bar, made("span", `${(100 * probability).toFixed(1)} %`));
    return row;
  }));
  const [height, width, channels] = facts.image_shape, canvas = get("input");
  [canvas.width, canvas.height] = [width, height];
  const drawn = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) drawn.data[4 * i + c] = pixels[channels === 1 ? i : 3 * i + c];
    drawn.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
  get("seen").hidden = false;
  tell(`Answered in ${milliseconds.toFixed(0)} ms.`);
}

function take(file) {
  if (!file) return tell("There is no image in that.", true);
  stop();
  forget();
  URL.revokeObjectURL(get("shown").src);
  get("shown").src = URL.createObjectURL(file);
  get("shown").hidden = false;
  tell(document.body.classList.contains("ready") ? "Looking …" : "The network is being loaded …");
  asked(file);
}

async function watch() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return tell(`The camera cannot be used: ${error.message}`, true);
  }
  const video = get("video");
  video.srcObject = stream;
  get("shown").hidden = true;
  forget();
  video.hidden = false;
  get("camera").textContent = "Stop the camera";
  await video.play();
  while (stream) { // the next frame when the last one was answered
    const frame = await createImageBitmap(video).catch(() => null);
    if (frame) await asked(frame, [frame]);
    await new Promise(requestAnimationFrame);
  }
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  get("video").hidden = true;
  get("camera").textContent = "Use the camera";
}

const place = get("place");
get("file").onchange = ({ target }) => { take(target.files[0]); target.value = ""; };
get("camera").hidden = !navigator.mediaDevices;
get("camera").onclick = () => (stream ? stop() : watch());
get("shown").onerror = () => { get("shown").hidden = true; };
document.onpaste = ({ clipboardData }) => take(clipboardData.files[0]);
document.ondragover = (event) => { event.preventDefault(); place.classList.add("over"); };
document.ondragleave = () => place.classList.remove("over");
document.ondrop = (event) => { event.preventDefault(); place.classList.remove("over"); take(event.dataTransfer.files[0]); };

if (location.protocol === "file:") {
  tell("A browser lets no page of files compute. Serve the folder: python -m http.server --directory <folder>, then open http://localhost:8000", true);
} else if (await isolated()) start();
