// What the page knows of the box, and the one word for it.

const HEARD_MS = 1500; // how long a turn's end is shown

export class Status {
  constructor() {
    this.link = "connecting"; // connecting, up, down
    this.problem = ""; // why the link is down for good, if it is
    this.online = true; // what the box says of itself on MQTT
    this.muted = false;
    this.microphone = { ok: true, message: "" };
    this.speaking = false;
    this.tells = false; // whether the box itself says that somebody speaks
    this.heardAt = -Infinity;
  }

  /** @returns {[string, string]} a name for the style and what people read */
  now(clock) {
    if (this.problem) return ["unreachable", this.problem];
    if (this.link === "connecting") return ["connecting", "Connecting"];
    if (this.link === "down") return ["unreachable", "No connection, trying again"];
    if (!this.online) return ["offline", "The box is off"];
    if (this.muted) return ["muted", "Muted: nothing is heard"];
    if (!this.microphone.ok) return ["no-microphone", this.microphone.message || "No microphone"];
    if (this.speaking) return ["speaking", "Hearing you"];
    if (clock - this.heardAt < HEARD_MS) return ["heard", "Understood"];
    return ["listening", "Listening"];
  }

  word() {
    if (!this.tells) this.speaking = true;
  }

  turn(clock) {
    if (!this.tells) this.speaking = false;
    this.heardAt = clock;
  }

  /** A retained `state/<name>` of the box. */
  state(name, value) {
    if (name === "mute") this.muted = value === "on" || value === true;
    if (name === "speaking") {
      this.tells = true;
      this.speaking = value === "on" || value === true;
    }
    if (name === "mic" && value && typeof value === "object") {
      this.muted = value.state === "muted";
      this.microphone = { ok: value.ok !== false, message: sentence(value.message) };
    }
  }
}

export function sentence(message, longest = 120) {
  if (typeof message !== "string") return "";
  return message.slice(0, 1).toUpperCase() + message.slice(1, longest);
}
