// The events of a device from a broker: the part of MQTT 3.1.1 over a WebSocket that the page
// needs, which is to subscribe and publish at QoS 0. Packet types: OASIS MQTT 3.1.1, section 2.2.

import { ReconnectingSocket } from "./reconnecting.js";

const CONNECT = 1, CONNACK = 2, PUBLISH = 3, SUBSCRIBE = 8, SUBACK = 9, PINGREQ = 12, PINGRESP = 13;
const KEEP_ALIVE_S = 20;
const MAX_PACKET = 256 * 1024;
const MESSAGES = ["text", "end_text", "turn", "step", "error", "flushed", "end_of_stream"];
const REFUSALS = { // by the return code of CONNACK
  4: "The broker does not know this user or password",
  5: "The broker refuses this page",
};

const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder();

export class MqttSource extends ReconnectingSocket {
  /**
   * @param {object} config see config.js
   * @param {{onMessage: Function, onState: Function, onOnline: Function,
   *          onConnection: Function}} handlers
   */
  constructor(config, handlers) {
    super(config.mqtt, ["mqtt"], handlers);
    this.config = config;
    this.prefix = `${config.base}/${config.device}/`;
    this.pending = new Uint8Array(0);
  }

  /** Asks the device to mute or unmute. The state that follows tells whether it did. */
  setMute(muted) {
    this.#send(publish(`${this.prefix}cmd/mute`, muted ? "on" : "off"));
  }

  onOpen() {
    this.pending = new Uint8Array(0);
    this.#send(connect(this.config));
  }

  onClose() {
    clearInterval(this.pingTimer);
  }

  onData(data) {
    this.pending = concatenated(this.pending, new Uint8Array(data));
    for (;;) {
      const packet = firstPacket(this.pending);
      if (packet === null) return;
      if (packet === "malformed") return this.socket.close();
      this.pending = this.pending.slice(packet.length);
      this.#onPacket(packet.type, packet.flags, packet.body);
    }
  }

  #onPacket(type, flags, body) {
    if (type === CONNACK) this.#onConnack(body[1]);
    else if (type === SUBACK) this.connected();
    else if (type === PINGRESP) this.answered = true;
    else if (type === PUBLISH) this.#onPublish(flags, body);
  }

  #onConnack(code) {
    if (code !== 0) {
      this.handlers.onConnection("refused", REFUSALS[code] ?? `The broker refuses this page (${code})`);
      return this.socket.close();
    }
    const topics = [...MESSAGES, "availability", "info", "state/mic", "state/mute", "state/speaking"];
    this.#send(subscribe(topics.map((name) => this.prefix + name)));
    this.answered = true;
    this.pingTimer = setInterval(() => this.#ping(), KEEP_ALIVE_S * 1000);
  }

  #ping() {
    if (!this.answered) return this.socket.close();
    this.answered = false;
    this.#send(packet(PINGREQ, 0, []));
  }

  #onPublish(flags, body) {
    const end = 2 + ((body[0] << 8) | body[1]);
    const topic = utf8Decoder.decode(body.subarray(2, end));
    const qos = (flags >> 1) & 3; // 0, as subscribed; otherwise a packet id follows
    const text = utf8Decoder.decode(body.subarray(end + (qos ? 2 : 0)));
    if (!topic.startsWith(this.prefix)) return;
    const name = topic.slice(this.prefix.length);
    if (name === "availability") this.handlers.onOnline(text === "online");
    else if (name === "info") this.handlers.onState("language", parsedJson(text)?.language);
    else if (name.startsWith("state/")) this.handlers.onState(name.slice(6), parsedJson(text) ?? text);
    else if (MESSAGES.includes(name)) this.handlers.onMessage(parsedJson(text) ?? {});
  }

  #send(bytes) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(bytes);
  }
}

function parsedJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function concatenated(a, b) {
  if (!a.length) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** The packet at the start of `bytes`; null if it is not complete. */
export function firstPacket(bytes) {
  let size = 0;
  for (let at = 1, shift = 0; ; at += 1, shift += 7) {
    if (shift > 21) return "malformed";
    if (at >= bytes.length) return null;
    size += (bytes[at] & 127) << shift;
    if (bytes[at] & 128) continue;
    if (size > MAX_PACKET) return "malformed";
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
  const bytes = utf8Encoder.encode(text);
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
  return packet(PUBLISH, 0, [...string(topic), ...utf8Encoder.encode(text)]);
}
