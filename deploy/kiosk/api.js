// The events of the device itself, from the API server that serves this page: `GET /api/events`, a
// WebSocket.

import { storeKey } from "./key.js";
import { ReconnectingSocket } from "./reconnecting.js";
import { asSentence } from "./status.js";

const REFUSALS = [401, 403, 404, 429]; // key, origin or host name, no microphone, too many keys

export class ApiSource extends ReconnectingSocket {
  /**
   * @param {string} key the API key, or ""
   * @param {{onMessage: Function, onState: Function, onConnection: Function,
   *          onKeyRequired: Function}} handlers
   */
  constructor(key, handlers) {
    super(eventsUrl(key), [], handlers);
    this.key = key;
  }

  /** Connects with another key. */
  useKey(key) {
    this.key = key;
    this.reconnectTo(eventsUrl(key));
  }

  /** Asks the device to mute or unmute. The state that follows tells whether it did. */
  setMute(muted) {
    this.#post("/api/mute", JSON.stringify({ mute: muted })).catch(() => {});
  }

  onOpen() {
    storeKey(this.key); // only once it has been accepted, so that a bad link replaces no good key
    this.wasOpen = true;
    this.connected();
  }

  onClose() {
    if (!this.wasOpen) this.#findReason(this.socket);
    this.wasOpen = false;
  }

  onData(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message.type === "state") this.handlers.onState(message.name, message.value);
    else this.handlers.onMessage(message);
  }

  /** A browser does not tell a page why its WebSocket was refused, so this asks with a request. */
  async #findReason(socket) {
    let problem = "", keyRequired = false;
    try {
      const response = await this.#post("/api/events");
      if (REFUSALS.includes(response.status)) {
        problem = asSentence((await response.text()).trim(), 250);
      }
      keyRequired = response.status === 401;
    } catch {
      // the server cannot be reached
    }
    const outdated = this.socket !== socket && keyRequired;
    if (this.wasOpen || outdated) return;
    if (keyRequired && !this.key) problem = "This device requires its key";
    this.handlers.onConnection("refused", problem);
    if (keyRequired) this.handlers.onKeyRequired();
  }

  #post(path, body) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    return fetch(withKey(path, this.key), { method: "POST", headers, body });
  }
}

function eventsUrl(key) {
  const url = withKey("/api/events", key);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("states", "on"); // mute, microphone and speaking, in addition to messages
  return url.href;
}

function withKey(path, key) {
  const url = new URL(path, location.origin);
  if (key) url.searchParams.set("token", key); // a header could not hold every character
  return url;
}
