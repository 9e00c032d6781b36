// A WebSocket that comes back: after half a second, then later and later, at most 10 s apart.

const FIRST_MS = 500;
const LONGEST_MS = 10_000;
const OPEN_MS = 8_000; // longest wait for an answer

export class Reconnecting {
  constructor(url, protocols, told) {
    this.url = url;
    this.protocols = protocols;
    this.told = told;
    this.wait = FIRST_MS;
    this.retry = 0;
    this.#open();
    addEventListener("online", () => this.retry && this.#now());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.retry) this.#now();
    });
  }

  /** The other side has accepted us. */
  up() {
    clearTimeout(this.slow);
    this.wait = FIRST_MS;
    this.told.link("up");
  }

  /** Elsewhere, at once. */
  turnTo(url) {
    const before = this.socket;
    this.url = url;
    this.wait = FIRST_MS;
    this.#now();
    before.close();
  }

  #now() {
    clearTimeout(this.retry);
    this.#open();
  }

  #open() {
    this.retry = 0;
    const socket = new WebSocket(this.url, this.protocols);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.slow = setTimeout(() => socket.close(), OPEN_MS);
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => this.received(event.data);
    socket.onclose = () => this.#closed(socket);
  }

  #closed(socket) {
    if (socket !== this.socket || this.retry) return;
    clearTimeout(this.slow);
    this.closed?.();
    this.told.link("down");
    this.retry = setTimeout(() => this.#open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_MS);
  }
}
