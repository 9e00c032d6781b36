// What the page knows about the device, and how it is shown.

const TURN_SHOWN_MS = 1500; // how long the end of a turn is shown

export class Status {
  constructor() {
    this.connection = "connecting"; // connecting, connected or disconnected
    this.problem = ""; // why there is no connection, if trying again will not help
    this.online = true; // `availability` on MQTT
    this.muted = false;
    this.microphone = { ok: true, message: "" };
    this.speaking = false;
    this.hasSpeakingState = false; // the device reports `speaking`; otherwise words tell
    this.turnEndedAt = -Infinity;
  }

  /** @returns {[string, string]} a name for the style, and the text that is shown */
  describe(now) {
    if (this.problem) return ["unreachable", this.problem];
    if (this.connection === "connecting") return ["connecting", "Connecting"];
    if (this.connection === "disconnected") return ["unreachable", "No connection, trying again"];
    if (!this.online) return ["offline", "The device is off"];
    if (this.muted) return ["muted", "Muted: the microphone is closed"];
    if (!this.microphone.ok) return ["no-microphone", this.microphone.message || "No microphone"];
    if (this.speaking) return ["speaking", "Hearing you"];
    if (now - this.turnEndedAt < TURN_SHOWN_MS) return ["heard", "Understood"];
    return ["listening", "Listening"];
  }

  /** A word was committed. */
  wordReceived() {
    if (!this.hasSpeakingState) this.speaking = true;
  }

  /** A turn ended. */
  turnReceived(now) {
    if (!this.hasSpeakingState) this.speaking = false;
    this.turnEndedAt = now;
  }

  /** A state of the device changed: on MQTT the retained topic `state/<name>`. */
  setState(name, value) {
    if (name === "mute") this.muted = value === "on" || value === true;
    if (name === "speaking") {
      this.hasSpeakingState = true;
      this.speaking = value === "on" || value === true;
    }
    if (name === "mic" && value && typeof value === "object") {
      this.muted = value.state === "muted";
      this.microphone = { ok: value.ok !== false, message: asSentence(value.message) };
    }
  }
}

/** A message with a capital letter, cut to `longest` characters; "" if it is not a string. */
export function asSentence(message, longest = 120) {
  if (typeof message !== "string") return "";
  return message.slice(0, 1).toUpperCase() + message.slice(1, longest);
}
