// Keeps the page's own files, so that it loads while the box restarts or the network is away.
// The network is asked first: an upgrade of edged shows at the next load.

const CACHE = "edged-kiosk";
const FILES = ["./", "kiosk.css", "kiosk.js", "captions.js", "status.js", "door.js", "mqtt.js",
  "reconnecting.js", "key.js", "config.js", "icon.svg"];
const PATIENCE_MS = 2000;

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

addEventListener("activate", (event) => event.waitUntil(clients.claim()));

addEventListener("fetch", (event) => {
  const ours = new URL(event.request.url).origin === location.origin;
  if (event.request.method === "GET" && ours) event.respondWith(freshOrKept(event.request));
});

async function freshOrKept(request) {
  const cache = await caches.open(CACHE);
  try {
    const answer = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
    const known = await cache.match(request, { ignoreSearch: true });
    if (answer.ok && known) await cache.put(stripped(request), answer.clone());
    return answer;
  } catch (problem) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw problem;
  }
}

/** Without what follows the question mark, so that each file is kept once, and no key. */
function stripped(request) {
  const url = new URL(request.url);
  url.search = "";
  url.hash = "";
  return url.href;
}
