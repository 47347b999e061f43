// Tells the answers of the network to the images of cases.json.
let runs;
const cases = await (await fetch("cases.json")).json(), told = [];
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const worker = new Worker("worker.js" + location.search, { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.loaded) runs = data.loaded.runs, cases.forEach((image, id) => worker.postMessage({ id, image: new Blob([bytes(image)]) }));
  else told.push(data);
  if (data.failed || told.length === cases.length) {
    for (const { result } of told) if (result) result.pixels = Array.from(result.pixels);
    fetch("told", { method: "POST", body: JSON.stringify({ runs, told }) });
  }
};
