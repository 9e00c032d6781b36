// What has been said: the words of the turn that goes on, and the last turns, each on a line.
// All of it is bounded, and the page is touched once a frame at most, however much arrives.

const MAX_LIVE_WORDS = 120; // words without a turn's end; then they become a line of their own
const LEEWAY_S = 0.5; // a turn heard again as a whole may begin a little later than its first word

export class Captions {
  /** @param {HTMLElement} log past turns  @param {HTMLElement} live the words of now */
  constructor(log, live, lines) {
    this.log = log;
    this.live = live;
    this.lines = Math.max(1, lines);
    this.words = []; // {text, start}
    this.past = []; // strings, at most `lines`
    this.fresh = 0; // how many of `past` are not on the page yet
    this.frame = 0;
  }

  /** One committed word (a `text` message). */
  word(text, start) {
    const last = this.words.at(-1);
    const another = last && start < last.start - LEEWAY_S; // a stream that began anew
    if (another || this.words.length >= MAX_LIVE_WORDS) this.settle();
    this.words.push({ text, start });
    this.draw();
  }

  /** The whole turn, heard again (a `turn` message): it takes the place of its words. */
  turn(text, start, stop) {
    const before = this.words.filter((word) => word.start < start - LEEWAY_S);
    this.words = this.words.filter((word) => word.start > stop);
    this.#add(before.map((word) => word.text).join(" "));
    this.#add(text);
    this.draw();
  }

  /** The words of now become a line: no turn will come for them. */
  settle() {
    this.#add(this.words.map((word) => word.text).join(" "));
    this.words = [];
    this.draw();
  }

  /** For after a reload. */
  save() {
    return { past: this.past, words: this.words };
  }

  restore({ past, words }) {
    this.words = words.slice(-MAX_LIVE_WORDS);
    past.forEach((line) => this.#add(line));
    this.draw();
  }

  #add(line) {
    if (!line) return;
    this.past.push(line);
    this.past.splice(0, this.past.length - this.lines);
    this.fresh = Math.min(this.fresh + 1, this.lines);
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.frame = 0;
    for (const line of this.fresh ? this.past.slice(-this.fresh) : []) {
      const item = document.createElement("p");
      item.textContent = line;
      this.log.append(item);
    }
    this.fresh = 0;
    while (this.log.childElementCount > this.lines) this.log.firstElementChild.remove();
    const text = this.words.map((word) => word.text).join(" ");
    if (this.live.textContent !== text) this.live.textContent = text;
    document.body.classList.toggle("quiet", !text);
  }
}
