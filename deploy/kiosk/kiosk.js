// The page: events come in from one source, captions and status go out. It keeps working, and
// loads again, without the box and without any network (sw.js).

import { Captions } from "./captions.js";
import fromFile from "./config.js";
import { Door } from "./door.js";
import { keptKey, keyFromAddress } from "./key.js";
import { Mqtt } from "./mqtt.js";
import { Status } from "./status.js";

const SAVED = "edged-kiosk"; // in sessionStorage, of this tab alone
const TICK_MS = 250;

const config = { ...fromFile, ...fromAddress() };
const byId = (id) => document.getElementById(id);
const captions = new Captions(byId("log"), byId("live"), Number(config.lines) || 8);
const status = new Status();
const muteButton = byId("mute");
const keyForm = byId("key-form");
let source = null;
let silence = 0;

/** What may stand in the page's address: nothing secret, which would end up in histories. */
function fromAddress() {
  const given = new URLSearchParams(location.search);
  const names = ["theme", "size", "lines", "hint", "device", "base", "mqtt"];
  return Object.fromEntries(names.filter((n) => given.has(n)).map((n) => [n, given.get(n)]));
}

function message(event) {
  switch (event.type) {
    case "text":
      status.word();
      captions.word(String(event.text), Number(event.start_s));
      break;
    case "turn":
      status.turn(performance.now());
      captions.turn(String(event.text), Number(event.start_s), Number(event.stop_s));
      save();
      break;
    case "step":
      step(event);
      return; // 12.5 times a second: nothing else changes with it
    case "end_of_stream":
      captions.settle();
      status.speaking = false;
  }
  show();
}

/** The bar fills as silence becomes likely to last: when it is full, the turn is over. */
function step(event) {
  bar(captions.words.length ? Number(event.vad?.at(-1)?.inactivity_prob ?? 0) * 2 : 0);
}

function bar(share) {
  const now = Math.round(Math.min(1, share) * 50) / 50;
  if (now === silence) return;
  silence = now;
  byId("silence").style.transform = `scaleX(${now})`;
}

function show() {
  const [name, text] = status.now(performance.now());
  if (document.body.dataset.status !== name) document.body.dataset.status = name;
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text;
  // No steps come from a box that is muted or gone: the bar would stay as it was.
  if (!captions.words.length || !["speaking", "listening", "heard"].includes(name)) bar(0);
  const usable = status.link === "up" && status.online;
  muteButton.hidden = !source?.mute;
  muteButton.disabled = !usable;
  muteButton.setAttribute("aria-pressed", String(status.muted));
  const label = status.muted ? "Unmute" : "Mute";
  if (muteButton.textContent !== label) muteButton.textContent = label;
  byId("hint").textContent = captions.past.length || captions.words.length ? "" : config.hint;
}

function save() {
  try {
    sessionStorage.setItem(SAVED, JSON.stringify(captions.save()));
  } catch {
    // no storage: a reload then begins empty
  }
}

function restore() {
  try {
    captions.restore(JSON.parse(sessionStorage.getItem(SAVED)));
  } catch {
    // nothing saved, or not by us
  }
}

const told = {
  message,
  state(name, value) {
    status.state(name, value);
    show();
  },
  online(online) {
    status.online = online;
    show();
  },
  link(link, problem = "") {
    if (link === "refused") status.problem = problem;
    else if (link === "up") status.problem = "";
    status.link = link === "up" ? "up" : "down";
    if (link === "up") keyForm.hidden = true;
    if (link !== "up") status.speaking = false;
    show();
  },
  keyWanted() {
    if (!keyForm.hidden) return; // somebody may be typing
    keyForm.hidden = false;
    byId("key").focus();
  },
};

function useKey(key) {
  if (key && source instanceof Door) source.useKey(key);
}

function start() {
  if (config.theme) document.documentElement.dataset.theme = config.theme;
  const size = Math.min(3, Math.max(0.3, Number(config.size) || 1));
  if (size !== 1) {
    const now = getComputedStyle(document.documentElement).getPropertyValue("--size");
    document.documentElement.style.setProperty("--size", `calc(${now} * ${size})`);
  }
  restore();
  const key = keyFromAddress() || keptKey();
  if (fromFile.password && config.mqtt !== fromFile.mqtt) {
    // Somebody's link must not send the password to somebody's broker.
    status.problem = "The broker of this page stands in config.js, not in its address";
  } else if (config.mqtt && !/^[a-z0-9-]+$/.test(config.device)) {
    status.problem = "config.js must name the device";
  } else {
    source = config.mqtt ? new Mqtt(config, told) : new Door(key, told);
  }
  muteButton.onclick = () => source.mute(!status.muted);
  keyForm.onsubmit = (event) => {
    event.preventDefault();
    useKey(byId("key").value);
    byId("key").value = "";
  };
  addEventListener("hashchange", () => useKey(keyFromAddress()));
  addEventListener("pagehide", save);
  setInterval(show, TICK_MS);
  show();
  if (isSecureContext) navigator.serviceWorker?.register("sw.js").catch(() => {});
  navigator.wakeLock?.request("screen").catch(() => {});
}

start();
