// The API key (EDGED_API_KEY). It is in none of the page's files, because these are public. It is
// typed in, or comes in the fragment of the page's address (#key=...), which is sent to no server.
// The browser stores it.

const STORED = "edged-api-key"; // in localStorage
const STORED_BEFORE = "edged-door-key"; // its name before 0.2.0

/** Takes the key out of the page's address, so that no screen and no copied link shows it. */
export function keyFromAddress() {
  const given = /^#key=(.+)$/.exec(location.hash)?.[1];
  if (!given) return "";
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(given);
  } catch {
    return given; // the key contains a % that is not an escape
  }
}

/** Returns the stored key, or "". */
export function storedKey() {
  try {
    return localStorage.getItem(STORED) ?? localStorage.getItem(STORED_BEFORE) ?? "";
  } catch {
    return ""; // no storage: the key is asked for each time
  }
}

export function storeKey(key) {
  try {
    if (key) localStorage.setItem(STORED, key);
    localStorage.removeItem(STORED_BEFORE);
  } catch {
    // no storage
  }
}
