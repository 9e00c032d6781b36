// A WebSocket that reconnects: after half a second, then less and less often, at most 10 s apart.
// Subclasses define onOpen(), onData(data) and, if they need it, onClose().

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const OPEN_MS = 8_000; // for connecting and being accepted

export class ReconnectingSocket {
  constructor(url, protocols, handlers) {
    this.url = url;
    this.protocols = protocols;
    this.handlers = handlers;
    this.wait = FIRST_WAIT_MS;
    this.timer = 0; // of the next attempt
    this.#open();
    addEventListener("online", () => this.timer && this.#openNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.timer) this.#openNow();
    });
  }

  /** To be called when the server has accepted this client. */
  connected() {
    clearTimeout(this.openTimer);
    this.wait = FIRST_WAIT_MS;
    this.handlers.onConnection("connected");
  }

  /** Connects to another address at once. */
  reconnectTo(url) {
    const before = this.socket;
    this.url = url;
    this.wait = FIRST_WAIT_MS;
    this.#openNow();
    before.close();
  }

  #openNow() {
    clearTimeout(this.timer);
    this.#open();
  }

  #open() {
    this.timer = 0;
    const socket = new WebSocket(this.url, this.protocols);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.openTimer = setTimeout(() => socket.close(), OPEN_MS);
    socket.onopen = () => this.onOpen();
    socket.onmessage = (event) => this.onData(event.data);
    socket.onclose = () => this.#closed(socket);
  }

  #closed(socket) {
    if (socket !== this.socket || this.timer) return;
    clearTimeout(this.openTimer);
    this.onClose?.();
    this.handlers.onConnection("disconnected");
    this.timer = setTimeout(() => this.#open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }
}
