// The box's events from a broker: MQTT 3.1.1 over a WebSocket, as much of it as a page needs,
// which is to subscribe and publish at QoS 0. Numbers of packets: OASIS MQTT 3.1.1, section 2.2.

import { Reconnecting } from "./reconnecting.js";

const CONNECT = 1, CONNACK = 2, PUBLISH = 3, SUBSCRIBE = 8, SUBACK = 9, PINGREQ = 12, PINGRESP = 13;
const KEEP_ALIVE_S = 20;
const MAX_PACKET = 256 * 1024;
const MESSAGES = ["text", "end_text", "turn", "step", "error", "flushed", "end_of_stream"];
const REFUSED = {
  4: "The broker does not know this user or password",
  5: "The broker refuses this page",
};

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder();

export class Mqtt extends Reconnecting {
  /** @param {{message: Function, state: Function, online: Function, link: Function}} told */
  constructor(config, told) {
    super(config.mqtt, ["mqtt"], told);
    this.config = config;
    this.top = `${config.base}/${config.device}/`;
    this.pending = new Uint8Array(0);
  }

  mute(on) {
    this.#send(publish(`${this.top}cmd/mute`, on ? "on" : "off"));
  }

  opened() {
    this.pending = new Uint8Array(0);
    this.#send(connect(this.config));
  }

  closed() {
    clearInterval(this.ping);
  }

  received(data) {
    this.pending = joined(this.pending, new Uint8Array(data));
    for (;;) {
      const packet = firstPacket(this.pending);
      if (packet === null) return;
      if (packet === "broken") return this.socket.close();
      this.pending = this.pending.slice(packet.length);
      this.#packet(packet.type, packet.flags, packet.body);
    }
  }

  #packet(type, flags, body) {
    if (type === CONNACK) this.#accepted(body[1]);
    else if (type === SUBACK) this.up();
    else if (type === PINGRESP) this.alive = true;
    else if (type === PUBLISH) this.#message(flags, body);
  }

  #accepted(code) {
    if (code !== 0) {
      this.told.link("refused", REFUSED[code] ?? `The broker refuses this page (${code})`);
      return this.socket.close();
    }
    const topics = [...MESSAGES, "availability", "state/mic", "state/mute", "state/speaking"];
    this.#send(subscribe(topics.map((name) => this.top + name)));
    this.alive = true;
    this.ping = setInterval(() => this.#beat(), KEEP_ALIVE_S * 1000);
  }

  #beat() {
    if (!this.alive) return this.socket.close();
    this.alive = false;
    this.#send(packet(PINGREQ, 0, []));
  }

  #message(flags, body) {
    const end = 2 + ((body[0] << 8) | body[1]);
    const topic = fromUtf8.decode(body.subarray(2, end));
    const qos = (flags >> 1) & 3; // never above what was subscribed to; its id would come here
    const text = fromUtf8.decode(body.subarray(end + (qos ? 2 : 0)));
    if (!topic.startsWith(this.top)) return;
    const name = topic.slice(this.top.length);
    if (name === "availability") this.told.online(text === "online");
    else if (name.startsWith("state/")) this.told.state(name.slice(6), json(text) ?? text);
    else if (MESSAGES.includes(name)) this.told.message(json(text) ?? {});
  }

  #send(bytes) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(bytes);
  }
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function joined(a, b) {
  if (!a.length) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** The packet that `bytes` begin with; null if more must come first. */
export function firstPacket(bytes) {
  let size = 0;
  for (let at = 1, shift = 0; ; at += 1, shift += 7) {
    if (shift > 21) return "broken";
    if (at >= bytes.length) return null;
    size += (bytes[at] & 127) << shift;
    if (bytes[at] & 128) continue;
    if (size > MAX_PACKET) return "broken";
    const length = at + 1 + size;
    if (bytes.length < length) return null;
    const body = bytes.subarray(at + 1, length);
    return { type: bytes[0] >> 4, flags: bytes[0] & 15, body, length };
  }
}

function packet(type, flags, body) {
  const head = [(type << 4) | flags];
  let left = body.length;
  do {
    const low = left & 127;
    left >>= 7;
    head.push(left ? low | 128 : low);
  } while (left);
  return new Uint8Array([...head, ...body]);
}

function string(text) {
  const bytes = utf8.encode(text);
  return [bytes.length >> 8, bytes.length & 255, ...bytes];
}

function connect({ username, password }) {
  const flags = 2 | (username ? 128 : 0) | (username && password ? 64 : 0); // a clean session
  const id = `edged-kiosk-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
  return packet(CONNECT, 0, [
    ...string("MQTT"), 4, flags, 0, KEEP_ALIVE_S * 2, ...string(id),
    ...(username ? string(username) : []),
    ...(username && password ? string(password) : []),
  ]);
}

function subscribe(topics) {
  return packet(SUBSCRIBE, 2, [0, 1, ...topics.flatMap((topic) => [...string(topic), 0])]);
}

function publish(topic, text) {
  return packet(PUBLISH, 0, [...string(topic), ...utf8.encode(text)]);
}
