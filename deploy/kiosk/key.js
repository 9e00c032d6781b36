// The key of the door (EDGED_API_KEY). It is in no file, for everybody may read those: it is typed
// in, or comes in the page's address behind a #, which is sent to no server. This browser keeps it.

const KEPT = "edged-door-key"; // in localStorage

/** What the address has of it is taken out, so that no screen and no copied link shows it. */
export function keyFromAddress() {
  const given = /^#key=(.+)$/.exec(location.hash)?.[1];
  if (!given) return "";
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(given);
  } catch {
    return given; // a key with a bare % in it
  }
}

export function keptKey() {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    return ""; // no storage: it is asked for at each load
  }
}

export function keepKey(key) {
  try {
    if (key) localStorage.setItem(KEPT, key);
  } catch {
    // likewise
  }
}
