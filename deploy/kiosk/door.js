// The box's own events, from the door that serves this page (GET /api/events, a WebSocket).

import { Reconnecting } from "./reconnecting.js";

export class Door extends Reconnecting {
  /** @param {{message: Function, state: Function, link: Function}} told */
  constructor(config, told) {
    const url = new URL("/api/events", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("states", "on"); // mute, microphone, speaking: beside the messages
    if (config.key) url.searchParams.set("token", config.key);
    super(url.href, [], told);
    this.key = config.key;
  }

  /** Asks for it; that it was done is seen by the state that follows. */
  mute(on) {
    const headers = { "Content-Type": "application/json" };
    if (this.key) headers["x-api-key"] = this.key;
    fetch("/api/mute", { method: "POST", headers, body: JSON.stringify({ mute: on }) }).catch(() => {});
  }

  opened() {
    this.up();
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
