// A service worker. It keeps what the page has loaded, for when there is no network, and gives each answer the headers
// with which browsers let WebAssembly use threads, whatever server the folder lies on.

const KEPT = `jaxcnn ${self.registration.scope}`;
const HEADERS = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

self.oninstall = () => self.skipWaiting();
self.onactivate = (event) => event.waitUntil(self.clients.claim());
self.onfetch = (event) => {
  const { url, method } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answered(event.request));
};

async function answered(request) {
  const kept = await caches.open(KEPT);
  let reply;
  try {
    reply = await fetch(request.url, { cache: "no-cache" });
    if (reply.ok) await kept.put(request.url, reply.clone()).catch(() => {}); // no room: nothing is kept
  } catch (error) {
    reply = await kept.match(request.url, { ignoreSearch: true });
    if (!reply) throw error;
  }
  const headers = new Headers(reply.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(reply.body, { status: reply.status, statusText: reply.statusText, headers });
}
