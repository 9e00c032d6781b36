// The captions page: shows the events of one source as captions and status. It keeps working, and
// can be loaded again, without the device and without a network (sw.js).

import { ApiSource } from "./api.js";
import { Captions } from "./captions.js";
import fileConfig from "./config.js";
import { keyFromAddress, storedKey } from "./key.js";
import { MqttSource } from "./mqtt.js";
import { Status } from "./status.js";

const SAVED = "edged-kiosk"; // in sessionStorage, which belongs to this tab
const TICK_MS = 250;

const config = { ...fileConfig, ...addressConfig() };
const byId = (id) => document.getElementById(id);
const captions = new Captions(byId("log"), byId("live"), Number(config.lines) || 8);
const status = new Status();
const muteButton = byId("mute");
const keyForm = byId("key-form");
let source = null;
let silence = 0;

/** The settings in the page's address. Secrets are not among them: addresses end up in histories. */
function addressConfig() {
  const given = new URLSearchParams(location.search);
  const names = ["theme", "size", "lines", "hint", "device", "base", "mqtt"];
  return Object.fromEntries(names.filter((n) => given.has(n)).map((n) => [n, given.get(n)]));
}

function onMessage(event) {
  switch (event.type) {
    case "text":
      status.wordReceived();
      captions.addWord(String(event.text), Number(event.start_s));
      break;
    case "turn":
      status.turnReceived(performance.now());
      captions.addTurn(
        String(event.text), Number(event.start_s), Number(event.stop_s), code(event.language),
      );
      save();
      break;
    case "step":
      onStep(event);
      return; // 12.5 times a second, and nothing else changes with it
    case "ready":
      captions.setLanguage(code(event.language));
      return;
    case "end_of_stream":
      captions.finishTurn();
      status.speaking = false;
  }
  show();
}

/** A language code as it came, or "" where there is none. */
function code(language) {
  return /^[a-z]{2,4}$/.test(language) ? language : "";
}

/** Fills the bar as it becomes likely that nobody goes on speaking. When full, the turn is over. */
function onStep(event) {
  showSilence(captions.words.length ? Number(event.vad?.at(-1)?.inactivity_prob ?? 0) * 2 : 0);
}

function showSilence(share) {
  const rounded = Math.round(Math.min(1, share) * 50) / 50;
  if (rounded === silence) return;
  silence = rounded;
  byId("silence").style.transform = `scaleX(${rounded})`;
}

function show() {
  const [name, text] = status.describe(performance.now());
  if (document.body.dataset.status !== name) document.body.dataset.status = name;
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text;
  // A device that is muted or gone sends no steps, which would leave the bar as it was.
  if (!captions.words.length || !["speaking", "listening", "heard"].includes(name)) showSilence(0);
  const usable = status.connection === "connected" && status.online;
  muteButton.hidden = !source?.setMute;
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
    // no storage: the page begins empty when it is loaded again
  }
}

function restore() {
  try {
    captions.restore(JSON.parse(sessionStorage.getItem(SAVED)));
  } catch {
    // nothing is saved, or it is malformed
  }
}

const handlers = {
  onMessage,
  onState(name, value) {
    if (name === "language") captions.setLanguage(code(value));
    status.setState(name, value);
    show();
  },
  onOnline(online) {
    status.online = online;
    show();
  },
  onConnection(connection, problem = "") {
    const connected = connection === "connected";
    if (connection === "refused") status.problem = problem;
    else if (connected) status.problem = "";
    status.connection = connected ? "connected" : "disconnected";
    if (connected) keyForm.hidden = true;
    else status.speaking = false;
    show();
  },
  onKeyRequired() {
    if (!keyForm.hidden) return; // somebody may be typing
    keyForm.hidden = false;
    byId("key").focus();
  },
};

function useKey(key) {
  if (key && source instanceof ApiSource) source.useKey(key);
}

function start() {
  if (config.theme) document.documentElement.dataset.theme = config.theme;
  const size = Math.min(3, Math.max(0.3, Number(config.size) || 1));
  if (size !== 1) {
    const base = getComputedStyle(document.documentElement).getPropertyValue("--size");
    document.documentElement.style.setProperty("--size", `calc(${base} * ${size})`);
  }
  restore();
  const key = keyFromAddress() || storedKey();
  if (fileConfig.password && config.mqtt !== fileConfig.mqtt) {
    // A foreign link must not send the password to a foreign broker.
    status.problem = "The broker must be set in config.js, not in the address of this page";
  } else if (config.mqtt && !/^[a-z0-9-]+$/.test(config.device)) {
    status.problem = "config.js must name the device";
  } else {
    source = config.mqtt ? new MqttSource(config, handlers) : new ApiSource(key, handlers);
  }
  muteButton.onclick = () => source.setMute(!status.muted);
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
