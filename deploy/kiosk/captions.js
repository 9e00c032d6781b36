// The words of the current turn, and the last turns, each on a line of its own, in its own language
// and direction. Everything is bounded, and the page is updated at most once per frame, however much
// arrives.

import { direction, joined, tag } from "./languages.js";

const MAX_LIVE_WORDS = 120; // words without the end of a turn; then they become a line
const TOLERANCE_S = 0.5; // how much later than its first word a turn's start may be

export class Captions {
  /**
   * @param {HTMLElement} log shows past turns
   * @param {HTMLElement} live shows the words of the current turn
   * @param {number} lines how many past turns are kept
   */
  constructor(log, live, lines) {
    this.log = log;
    this.live = live;
    this.lines = Math.max(1, lines);
    this.language = ""; // of the live words: a code, or "" if it is not known
    this.finds = false; // whether the device finds the language of each turn
    this.words = []; // {text, start}
    this.past = []; // {text, language}, at most `lines`
    this.unpainted = 0; // how many of `past` are not on the page yet
    this.frame = 0;
  }

  /** Adds one committed word (a `text` message). */
  addWord(text, start) {
    const last = this.words.at(-1);
    const restarted = last && start < last.start - TOLERANCE_S; // times began at 0 again
    if (restarted || this.words.length >= MAX_LIVE_WORDS) this.finishTurn();
    this.words.push({ text, start });
    this.#requestPaint();
  }

  /** Adds a finished turn (a `turn` message), which replaces its words. */
  addTurn(text, start, stop, language = "") {
    const before = this.words.filter((word) => word.start < start - TOLERANCE_S);
    this.words = this.words.filter((word) => word.start > stop);
    this.#addLine(this.#text(before), this.language);
    this.#addLine(text, language);
    this.language = language || this.language;
    this.#requestPaint();
  }

  /** Sets the language of the live words; with "auto" it is that of the last turn. */
  setLanguage(language) {
    this.finds = language === "auto";
    if (!this.finds) this.language = language;
    this.#requestPaint();
  }

  /** Turns the current words into a line, because no `turn` will follow. */
  finishTurn() {
    this.#addLine(this.#text(this.words), this.language);
    this.words = [];
    this.#requestPaint();
  }

  /** Returns what `restore` needs after the page was loaded again. */
  save() {
    return { past: this.past, words: this.words, language: this.language };
  }

  restore({ past, words, language = "" }) {
    this.words = words.slice(-MAX_LIVE_WORDS);
    this.language = language;
    past.forEach((line) => this.#addLine(line.text, line.language));
    this.#requestPaint();
  }

  #text(words) {
    return joined(words.map((word) => word.text), this.language);
  }

  #addLine(text, language) {
    if (!text) return;
    this.past.push({ text, language });
    this.past.splice(0, this.past.length - this.lines);
    this.unpainted = Math.min(this.unpainted + 1, this.lines);
  }

  #requestPaint() {
    this.frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.frame = 0;
    for (const line of this.unpainted ? this.past.slice(-this.unpainted) : []) {
      const item = document.createElement("p");
      item.textContent = line.text;
      markLanguage(item, line.language);
      this.log.append(item);
    }
    this.unpainted = 0;
    while (this.log.childElementCount > this.lines) this.log.firstElementChild.remove();
    const text = this.#text(this.words);
    if (this.live.textContent !== text) this.live.textContent = text;
    // Until the turn ends, it may be in another language than the last one.
    markLanguage(this.live, this.language, this.finds ? "auto" : undefined);
    document.body.classList.toggle("quiet", !text);
  }
}

/** Tells browser and screen reader the language and direction of an element's text. */
function markLanguage(element, language, dir = direction(language)) {
  if (element.lang !== tag(language)) element.lang = tag(language);
  if (element.dir !== dir) element.dir = dir;
}
