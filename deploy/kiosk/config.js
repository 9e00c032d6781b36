// Where the captions come from. Without changes, the page shows the device that serves it.
//
// On another web server, the page takes the events from the broker. mosquitto needs a `listener 9001`
// with `protocol websockets` (deploy/mosquitto/edged.conf has one with TLS) and a user for this page.
// `deploy/mosquitto/add-user.sh --kiosk DEVICE`, on the machine of the broker, makes one that may read
// the topics of DEVICE and mute it, and prints its name and password. Everybody who can open this page
// can read this file.
//
//   mqtt: "wss://hub.local:9001", device: "kitchen", username: "kiosk-kitchen", password: "..."
//
// Everything that is not secret can also be set in the page's address:
// ?theme=dark&size=1.2&device=kitchen. The broker's address (?mqtt=...) can be set there only if
// there is no password here: otherwise a link could send the password anywhere.
//
// The API key (EDGED_API_KEY) does not belong here. The page asks for it once, or takes it from an
// address that is opened once, /kiosk/#key=..., and the browser stores it.
export default {
  mqtt: "", // ws:// or wss:// address of the broker; empty: the API server that serves this page
  device: "", // EDGED_DEVICE of the device
  base: "edged", // EDGED_MQTT_BASE
  username: "",
  password: "",
  theme: "", // "dark" or "light"; empty: as the system is set
  size: 1, // factor for the size of the letters
  lines: 8, // past turns that are kept
  hint: "What is said appears here", // shown until something is said
};
