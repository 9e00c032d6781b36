// The box's own events, from the door that serves this page (GET /api/events, a WebSocket).

import { keepKey } from "./key.js";
import { Reconnecting } from "./reconnecting.js";
import { sentence } from "./status.js";

const REFUSALS = [401, 403, 404]; // the key, the page or its name, no microphone

export class Door extends Reconnecting {
  /** @param {{message: Function, state: Function, link: Function, keyWanted: Function}} told */
  constructor(key, told) {
    super(address(key), [], told);
    this.key = key;
  }

  useKey(key) {
    this.key = key;
    this.turnTo(address(key));
  }

  /** Asks for it; that it was done is seen by the state that follows. */
  mute(on) {
    this.#post("/api/mute", JSON.stringify({ mute: on })).catch(() => {});
  }

  opened() {
    keepKey(this.key); // not before it fits: a bad link must not take the place of a good key
    this.wasOpen = true;
    this.up();
  }

  closed() {
    if (!this.wasOpen) this.#askWhy(this.socket);
    this.wasOpen = false;
  }

  /** A browser does not tell a page why its WebSocket was refused; an answer to a request, it does. */
  async #askWhy(socket) {
    let problem = "", wantsKey = false;
    try {
      const answer = await this.#post("/api/events");
      if (REFUSALS.includes(answer.status)) problem = sentence((await answer.text()).trim(), 250);
      wantsKey = answer.status === 401;
    } catch {
      // nobody is there
    }
    if (this.wasOpen || (this.socket !== socket && wantsKey)) return; // an answer of before
    this.told.link("refused", wantsKey && !this.key ? "This box asks for its key" : problem);
    if (wantsKey) this.told.keyWanted();
  }

  #post(path, body) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    return fetch(withKey(path, this.key), { method: "POST", headers, body });
  }

  received(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // not ours
    }
    if (message.type === "state") this.told.state(message.name, message.value);
    else this.told.message(message);
  }
}

function address(key) {
  const url = withKey("/api/events", key);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("states", "on"); // mute, microphone, speaking: beside the messages
  return url.href;
}

function withKey(path, key) {
  const url = new URL(path, location.origin);
  if (key) url.searchParams.set("token", key); // a header holds no letters beyond Latin-1
  return url;
}
