// How languages are written, by the codes of edged/languages.py.

const RIGHT_TO_LEFT = ["ar", "fa", "he", "ps", "sd", "ur", "yi"];
const WITHOUT_SPACES = ["bo", "ja", "km", "lo", "my", "th", "yue", "zh"];
const TAGS = { jw: "jv" }; // where a code is not the one of BCP 47

/** The value of `lang`; "" if the language is not known. */
export function tag(language) {
  return TAGS[language] ?? language;
}

/** The value of `dir`; where the language is not known, the text decides. */
export function direction(language) {
  if (!language) return "auto";
  return RIGHT_TO_LEFT.includes(language) ? "rtl" : "ltr";
}

/** Words as running text. */
export function joined(words, language) {
  return words.join(WITHOUT_SPACES.includes(language) ? "" : " ");
}
