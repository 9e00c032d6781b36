// Stores the page's own files, so that it loads while the device restarts or the network is down.
// The network is asked first, so that an upgrade of edged is shown at the next load.

const CACHE = "edged-kiosk";
const FILES = ["./", "kiosk.css", "kiosk.js", "captions.js", "languages.js", "status.js", "api.js", "mqtt.js",
  "reconnecting.js", "key.js", "config.js", "icon.svg"];
const TIMEOUT_MS = 2000;

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

addEventListener("activate", (event) => event.waitUntil(clients.claim()));

addEventListener("fetch", (event) => {
  const sameOrigin = new URL(event.request.url).origin === location.origin;
  if (event.request.method === "GET" && sameOrigin) event.respondWith(networkFirst(event.request));
});

async function networkFirst(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const known = await cache.match(request, { ignoreSearch: true });
    if (response.ok && known) await cache.put(withoutQuery(request), response.clone());
    return response;
  } catch (error) {
    const stored = await cache.match(request, { ignoreSearch: true });
    if (stored) return stored;
    throw error;
  }
}

/** The URL without its query and fragment, so that each file is stored once, and no key is. */
function withoutQuery(request) {
  const url = new URL(request.url);
  url.search = "";
  url.hash = "";
  return url.href;
}
