// Where the captions come from. As it is, the page shows the box that serves it.
//
// To serve the page from any other web server, take them from the broker: mosquitto needs a
// `listener 9001` with `protocol websockets` and a user that may read edged/DEVICE/# and, for the
// mute button, write edged/DEVICE/cmd/mute. Everybody who can open this page can read this file.
//
//   mqtt: "ws://hub.local:9001", device: "kitchen", username: "kiosk", password: "..."
//
// What is not secret can also stand in the address: ?theme=dark&size=1.2&device=kitchen
// The broker's (?mqtt=...) only if there is no password here: a link would send it anywhere.
//
// The key of the door (EDGED_API_KEY) does not belong here. The page asks for it once, or takes it
// from an address that is opened once, /kiosk/#key=..., and the browser keeps it.
export default {
  mqtt: "", // ws:// or wss:// address of the broker; empty: the door that serves this page
  device: "", // EDGED_DEVICE of the box
  base: "edged", // EDGED_MQTT_BASE
  username: "",
  password: "",
  theme: "", // "dark" or "light"; empty: as the system is set
  size: 1, // of the letters
  lines: 8, // past turns that are kept
  hint: "What is said appears here", // a sentence that is shown while nothing has been said
};
