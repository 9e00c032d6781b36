"""The captions page in a real Chromium, with a server that sends what a test wants."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from typing import Any

import pytest

from edged.languages import RIGHT_TO_LEFT, WITHOUT_SPACES
from tests.support.captions_page import KIOSK, FakeApiServer, state, step, turn, word
from tests.support.chromium import Chromium, Page

SCREENS = ((1920, 1080), (800, 480))
LONG = "no microphone: plughw:CARD=ReSpeaker4MicArrayUAC10,DEV=0 is gone, waiting until it is back"
LIVE = "document.querySelector('#live').textContent"
PAST = "[...document.querySelectorAll('#log p')].map(e => e.textContent)"
STATUS = "document.body.dataset.status"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def api_server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


@pytest.fixture
def page(browser: Chromium, api_server: FakeApiServer) -> Iterator[Page]:
    opened = browser.page(api_server.url)
    opened.wait(f"{STATUS} == 'listening'", 20)
    yield opened
    assert opened.complaints == []
    opened.close()


def wait_for_lines(page: Page, *lines: str) -> None:
    """Waits until these are the past turns."""
    wanted = json.dumps(json.dumps(lines, separators=(",", ":"), ensure_ascii=False))
    page.wait(f"JSON.stringify({PAST}) == {wanted}")


def test_words_appear_as_they_arrive_and_the_turn_replaces_them(
    page: Page, api_server: FakeApiServer
) -> None:
    api_server.publish(word("wreck", 1.0), word("a", 1.2), word("nice", 1.4))
    page.wait(f"{LIVE} == 'wreck a nice'")
    api_server.publish(turn("Recognise speech.", 1.05, 2.0), word("And", 4.0))
    wait_for_lines(page, "Recognise speech.")
    page.wait(f"{LIVE} == 'And'")


def test_words_without_a_turn_are_kept_apart_from_the_next_turn(
    page: Page, api_server: FakeApiServer
) -> None:
    api_server.publish(word("first", 1.0), word("second", 9.0), turn("Second.", 9.0, 9.5))
    wait_for_lines(page, "first", "Second.")
    api_server.publish(word("late", 20.0), {"type": "end_of_stream"})
    wait_for_lines(page, "first", "Second.", "late")
    api_server.publish(word("later", 30.0), word("anew", 0.5))
    wait_for_lines(page, "first", "Second.", "late", "later")


def test_text_is_never_interpreted_as_markup(page: Page, api_server: FakeApiServer) -> None:
    api_server.publish(turn("<img src=x onerror=alert(1)> & <b>bold</b>", 0, 1))
    wait_for_lines(page, "<img src=x onerror=alert(1)> & <b>bold</b>")


def test_the_page_shows_the_status_of_the_device(page: Page, api_server: FakeApiServer) -> None:
    api_server.publish(state("speaking", "on"))
    page.wait(f"{STATUS} == 'speaking'")
    api_server.publish(state("speaking", "off"), turn("Yes.", 0, 1))
    page.wait(f"{STATUS} == 'heard'")
    page.wait(f"{STATUS} == 'listening'")
    api_server.publish(
        state("mic", {"ok": False, "state": "lost", "message": "no microphone: X is gone"})
    )
    page.wait(f"{STATUS} == 'no-microphone'")
    assert page.text("#status") == "No microphone: X is gone"
    api_server.publish(
        state("mic", {"ok": True, "state": "running", "message": ""}), state("mute", "on")
    )
    page.wait(f"{STATUS} == 'muted'")
    assert "Muted" in page.text("#status")


def test_without_states_words_show_that_somebody_speaks(
    page: Page, api_server: FakeApiServer
) -> None:
    api_server.publish(word("hello", 0.0))
    page.wait(f"{STATUS} == 'speaking'")
    api_server.publish(turn("Hello.", 0.0, 0.5))
    page.wait(f"{STATUS} == 'heard'")


def test_the_bar_fills_towards_the_end_of_the_turn(page: Page, api_server: FakeApiServer) -> None:
    width = "document.querySelector('#silence').getBoundingClientRect().width / innerWidth"
    api_server.publish(step(1, 0.4))
    assert page.js(width) == 0  # no word yet
    api_server.publish(word("hello", 0.0), step(2, 0.25))
    page.wait(f"Math.abs({width} - 0.5) < 0.01")
    api_server.publish(step(3, 0.9))
    page.wait(f"{width} == 1")


def test_the_bar_is_empty_when_no_more_steps_will_follow(
    page: Page, api_server: FakeApiServer
) -> None:
    """When the device was muted in the middle of a turn, the bar stayed as it was."""
    width = "document.querySelector('#silence').getBoundingClientRect().width"
    api_server.publish(word("hello", 0.0), step(1, 0.25))
    page.wait(f"{width} > 0")
    api_server.publish(state("mute", "on"))
    page.wait(f"{width} == 0")


def test_the_page_explains_itself_until_something_is_wait_for_lines(
    page: Page, api_server: FakeApiServer
) -> None:
    assert page.text("#hint") == "What is said appears here"
    api_server.publish(word("hello", 0.0))
    page.wait("document.querySelector('#hint').offsetHeight == 0")


@pytest.mark.parametrize(("width", "height"), [*SCREENS, (480, 800), (360, 640), (1080, 1920)])
def test_nothing_overflows_in_portrait_or_landscape(
    browser: Chromium, api_server: FakeApiServer, width: int, height: int
) -> None:
    """On a portrait screen a long device name pushed the button out and cut every caption."""
    page = browser.page(api_server.url, width, height)
    page.wait(f"{STATUS} == 'listening'", 20)
    api_server.publish(
        turn("Somewhere incomprehensibilities happened.", 0, 1), word("Donaudampfschiff", 4.0)
    )
    api_server.publish(state("mic", {"ok": False, "state": "lost", "message": LONG}))
    page.wait(f"{STATUS} == 'no-microphone'")
    right = page.js("""Math.max(...[...document.querySelectorAll('#mute, #status, main, #live')]
        .map(e => Math.max(e.getBoundingClientRect().right, e.scrollWidth)))""")
    header = page.js("document.querySelector('header').offsetHeight")
    page.close()
    assert right <= width
    assert header <= height / 4


def test_words_stay_where_they_are_as_more_arrive(page: Page, api_server: FakeApiServer) -> None:
    """Balanced lines are for finished turns: a reader loses the place when words move."""
    sentence = "a few of the words that people say when they ask for the next train home"
    words = sentence.split()
    first = """(() => { const range = document.createRange();
      const node = document.querySelector('#live').firstChild;
      range.setStart(node, 0); range.setEnd(node, %d);
      return [...range.getClientRects()].map(r => [r.left, r.right]).join() })()"""
    seen: dict[int, str] = {}
    for count in range(1, len(words) + 1):
        api_server.publish(word(words[count - 1], count * 0.3))
        text = " ".join(words[:count])
        page.wait(f"{LIVE} == {json.dumps(text)}")
        for before, where in seen.items():
            assert page.js(first % before) == where, f"{text[:before]!r} moved at {text!r}"
        seen[len(text)] = page.js(first % len(text))


def test_a_caption_is_on_the_page_in_the_next_frame(
    browser: Chromium, api_server: FakeApiServer
) -> None:
    page = browser.page("about:blank")
    watch = """
      let frame = 0, came = null; window.frames = [];
      const count = () => { frame += 1; requestAnimationFrame(count); };
      requestAnimationFrame(count);
      const Real = WebSocket;
      window.WebSocket = class extends Real {
        set onmessage(f) {
          super.onmessage = (e) => { if (e.data.includes('"text"')) came = frame; f(e); };
        }
      };
      addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
        if (came !== null) window.frames.push(frame - came);
        came = null;
      }).observe(document.querySelector('#live'), {childList: true}));
    """
    page.call("Page.addScriptToEvaluateOnNewDocument", source=watch)
    page.go(api_server.url)
    page.wait(f"{STATUS} == 'listening'", 20)
    for number in range(20):
        api_server.publish(word(f"w{number}", number * 0.1))
        page.wait(f"{LIVE}.endsWith('w{number}')")
    late = page.js("window.frames")
    page.close()
    assert len(late) == 20
    assert max(late) <= 1


def test_a_reload_shows_the_captions_at_once_and_the_state_with_the_first_message(
    page: Page, api_server: FakeApiServer
) -> None:
    api_server.greeting = [state("mute", "on")]
    api_server.publish(turn("Before.", 0, 1), word("half", 2.0), word("a", 2.2))
    page.wait(f"{LIVE} == 'half a'")
    page.reload()
    wait_for_lines(page, "Before.")
    page.wait(f"{LIVE} == 'half a'")
    page.wait(f"{STATUS} == 'muted'")


def test_the_page_waits_for_a_device_that_restarts_and_loads_without_it(
    page: Page, api_server: FakeApiServer
) -> None:
    page.js("navigator.serviceWorker.ready.then(() => true)")
    page.wait("caches.open('edged-kiosk').then(c => c.keys()).then(k => k.length >= 10)")
    api_server.publish(turn("Kept.", 0, 1))
    wait_for_lines(page, "Kept.")
    api_server.close()
    page.wait(f"{STATUS} == 'unreachable'")
    page.reload()
    wait_for_lines(page, "Kept.")
    page.wait(f"{STATUS} == 'unreachable'")
    api_server.open()
    page.wait(f"{STATUS} == 'listening'", 20)
    api_server.publish(word("back", 0.0))
    page.wait(f"{LIVE} == 'back'")
    page.complaints.clear()  # Chromium notes each refused connection


def test_a_day_of_captions_takes_no_more_memory_than_an_hour(
    browser: Chromium, api_server: FakeApiServer
) -> None:
    """24 h: 24 000 turns of 8 words, and a step with each word, through the page's own socket."""
    page = browser.page("about:blank")
    keep = """
      const Real = WebSocket;
      window.WebSocket = class extends Real {
        set onmessage(f) { window.feed = f; super.onmessage = f; }
      };
    """
    page.call("Page.addScriptToEvaluateOnNewDocument", source=keep)
    page.go(api_server.url)
    page.wait(f"{STATUS} == 'listening'", 20)
    speak = """(async (from, to) => {
      const say = (message) => window.feed({data: JSON.stringify(message)});
      for (let n = from; n < to; n += 1) {
        for (let w = 0; w < 8; w += 1) {
          say({type: 'text', text: 'word' + n + '_' + w, start_s: n * 3.6 + w * 0.3, stream_id: 0});
          say({type: 'step', vad: [{inactivity_prob: (w % 5) / 10}], step_idx: n * 8 + w});
        }
        const text = 'A turn of eight words, number ' + n;
        say({type: 'turn', text, start_s: n * 3.6, stop_s: n * 3.6 + 2.4, words: []});
        if (n % 200 === 0) await new Promise(requestAnimationFrame);
      }
      await new Promise(requestAnimationFrame);
      return document.querySelectorAll('*').length;
    })"""
    elements = page.js(f"{speak}(0, 1000)")
    hour = page.heap_kb()
    assert page.js(f"{speak}(1000, 24000)") == elements
    day = page.heap_kb()
    page.close()
    assert day - hour < 200, f"{hour:.0f} kB after an hour, {day:.0f} kB after a day"


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_captions_can_be_read_from_three_metres_in_both_themes(
    browser: Chromium, api_server: FakeApiServer, width: int, height: int, scheme: str
) -> None:
    page = browser.page(api_server.url, width, height, prefers_color_scheme=scheme)
    page.wait(f"{STATUS} == 'listening'", 20)
    api_server.publish(turn("A long turn that needs more than one line on a small screen.", 0, 1))
    api_server.publish(
        word("Donaudampfschifffahrtsgesellschaftskapitän", 2.0), state("speaking", "on")
    )
    page.wait(f"{STATUS} == 'speaking' && {LIVE}")
    size = page.js("parseFloat(getComputedStyle(document.querySelector('#live')).fontSize)")
    # A capital is 0.7 of the size; 16 minutes of arc at 3 m are 14 mm. Height of a 24 inch
    # 1920x1080 screen 299 mm, of the Pi's 7 inch one 86 mm (ease is then given up a little).
    capital_mm = size * 0.7 * {1080: 299, 480: 86}[height] / height
    assert capital_mm > {1080: 14, 480: 11}[height]
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    assert page.js("document.documentElement.scrollHeight <= innerHeight")
    bottom = page.js("document.querySelector('#live').getBoundingClientRect().bottom")
    assert bottom <= height
    shades = {
        name: page.js(f"getComputedStyle(document.querySelector('{name}')).color")
        for name in ("#live", "#log p", "#status", "#mute")
    }
    page_colour = page.js("getComputedStyle(document.body).backgroundColor")
    assert contrast(shades["#live"], page_colour) > 15
    assert min(contrast(shade, page_colour) for shade in shades.values()) >= 4.5
    assert (luminance(page_colour) < 0.1) == (scheme == "dark")
    page.close()


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_status_has_enough_contrast(browser: Chromium, api_server: FakeApiServer) -> None:
    names = ("connecting", "listening", "speaking", "heard", "muted", "no-microphone", "offline")
    for scheme in ("dark", "light"):
        page = browser.page(api_server.url, prefers_color_scheme=scheme)
        page.wait(f"{STATUS} == 'listening'", 20)
        ground = page.js("getComputedStyle(document.body).backgroundColor")
        for name in names:
            page.js(f"document.body.dataset.status = '{name}'")
            colour = page.js("getComputedStyle(document.querySelector('#status')).color")
            assert contrast(colour, ground) >= 4.5, (scheme, name)
        page.close()


def test_axe_finds_no_accessibility_problem(browser: Chromium, api_server: FakeApiServer) -> None:
    """Runs axe-core, which is behind Lighthouse's accessibility audit, in several states.

    It found list items without a list (a list with the role log is none) and a missing heading.
    """
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    broken = """axe.run().then(r => [...r.violations, ...r.incomplete]
        .map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 80)).join(' ')))"""
    for scheme, (width, height) in product(("dark", "light"), SCREENS):
        page = browser.page(api_server.url, width, height, prefers_color_scheme=scheme)
        page.wait(f"{STATUS} == 'listening'", 20)
        api_server.publish(turn("Said before.", 0, 1), word("now", 4.0))
        page.wait(f"{LIVE} == 'now'")
        page.js(axe + "; 0")
        for status in ("listening", "speaking", "muted", "no-microphone"):
            page.js(f"document.body.dataset.status = '{status}'")
            assert page.js(broken) == [], (scheme, width, status)
        page.js("sessionStorage.clear()")
        page.close()
        api_server.clients.clear()


def test_a_screen_reader_reads_turns_and_status_but_not_every_word(page: Page) -> None:
    roles = page.js("""({
      lang: document.documentElement.lang, title: document.title,
      log: document.querySelector('#log').getAttribute('aria-live'),
      live: document.querySelector('#live').getAttribute('aria-live'),
      status: document.querySelector('#status').getAttribute('role'),
      main: document.querySelectorAll('main').length,
    })""")
    assert roles == {"lang": "en", "title": "Captions", "log": "polite", "live": "off",
                     "status": "status", "main": 1}  # fmt: skip


def test_reduced_motion_is_respected(browser: Chromium, api_server: FakeApiServer) -> None:
    page = browser.page(api_server.url, prefers_reduced_motion="reduce")
    page.wait(f"{STATUS} == 'listening'", 20)
    api_server.publish(state("speaking", "on"))
    page.wait(f"{STATUS} == 'speaking'")
    assert page.js("document.getAnimations().length") == 0
    page.media()
    page.wait("document.getAnimations().length > 0")
    page.close()


def test_the_address_can_set_theme_and_size(browser: Chromium, api_server: FakeApiServer) -> None:
    size = "parseFloat(getComputedStyle(document.querySelector('main')).fontSize)"
    page = browser.page(api_server.url, prefers_color_scheme="dark")
    page.wait(f"{STATUS} == 'listening'", 20)
    usual = page.js(size)
    page.go(f"{api_server.url}?theme=light&size=1.5")
    page.wait(f"{STATUS} == 'listening'", 20)
    assert page.js(size) == pytest.approx(usual * 1.5, rel=0.01)
    assert luminance(page.js("getComputedStyle(document.body).backgroundColor")) > 0.9
    page.close()


def test_the_page_requests_nothing_from_other_hosts() -> None:
    for file in KIOSK.iterdir():
        others = set(re.findall(r"//([a-z0-9-]+\.[a-z0-9.-]+)", file.read_text()))
        assert others <= {"www.w3.org", "hub.local"}, file.name  # the SVG namespace, and an example


def test_the_service_worker_stores_every_file_of_the_page() -> None:
    kept = set(re.findall(r'"([a-z]+\.[a-z]+)"', (KIOSK / "sw.js").read_text()))
    assert kept | {"index.html", "sw.js"} == {file.name for file in KIOSK.iterdir()} | {"sw.js"}


LANGUAGES = "[...document.querySelectorAll('#log p')].map(e => [e.lang, e.dir])"


def in_language(language: str, text: str, start_s: float) -> dict[str, Any]:
    return turn(text, start_s, start_s + 1) | {"language": language}


def test_each_line_says_its_language_and_direction(page: Page, api_server: FakeApiServer) -> None:
    """Screen readers choose a voice by `lang`; without `dir` a full stop is at the wrong end."""
    api_server.publish(
        in_language("de", "Größe und Straße.", 0),
        in_language("fr", "Ça va, François ?", 2),
        in_language("he", "שלום עולם.", 4),
        in_language("ar", "درجة الحرارة 21 الآن.", 6),
        in_language("ja", "電気をつけて。", 8),
        turn("of an older device", 10, 11),
    )
    page.wait(f"{PAST}.length == 6")
    assert page.js(LANGUAGES) == [
        ["de", "ltr"],
        ["fr", "ltr"],
        ["he", "rtl"],
        ["ar", "rtl"],
        ["ja", "ltr"],
        ["", "auto"],
    ]
    edges = """[...document.querySelectorAll('#log p')].map(e => {
      const range = document.createRange(); range.selectNodeContents(e.firstChild);
      const text = range.getBoundingClientRect(), all = e.getBoundingClientRect();
      return text.left - all.left < all.right - text.right ? 'left' : 'right'})"""
    assert page.js(edges) == ["left", "left", "right", "right", "left", "left"]


def test_live_words_have_the_language_of_the_device_and_then_of_the_last_turn(
    page: Page, api_server: FakeApiServer
) -> None:
    live = "(e => [e.lang, e.dir, e.textContent])(document.querySelector('#live'))"
    api_server.publish(state("language", "ja"), word("電気を", 0.0), word("つけて", 0.4))
    page.wait(f"{LIVE} == '電気をつけて'")
    assert page.js(live) == ["ja", "ltr", "電気をつけて"]
    api_server.publish(state("language", "auto"), in_language("ar", "نعم.", 0.0))
    api_server.publish(word("شكرا", 4.0), word("لك", 4.4))
    page.wait(f"{LIVE} == 'شكرا لك'")
    assert page.js(live) == ["ar", "auto", "شكرا لك"]
    direction = "getComputedStyle(document.querySelector('#live')).direction"
    assert page.js(direction) == "rtl"
    api_server.publish(in_language("ar", "شكرا لك.", 4.0), word("Danke", 8.0))
    page.wait(f"{LIVE} == 'Danke'")
    assert page.js(direction) == "ltr", "until the turn ends, the text decides"


def test_what_is_no_code_is_no_language(page: Page, api_server: FakeApiServer) -> None:
    api_server.publish(in_language('"><b', "x", 0), in_language("", "y", 2))
    page.wait(f"{PAST}.length == 2")
    assert page.js(LANGUAGES) == [["", "auto"], ["", "auto"]]


def test_languages_survive_a_reload(page: Page, api_server: FakeApiServer) -> None:
    api_server.publish(in_language("he", "שלום.", 0), word("עולם", 4.0))
    page.wait(f"{LIVE} == 'עולם'")
    page.reload()
    wait_for_lines(page, "שלום.")
    assert page.js(LANGUAGES) == [["he", "rtl"]]
    page.wait("document.querySelector('#live').dir == 'rtl'")


def test_the_page_writes_languages_as_the_rest_of_edged_does() -> None:
    script = (KIOSK / "languages.js").read_text()
    for name, codes in (("RIGHT_TO_LEFT", RIGHT_TO_LEFT), ("WITHOUT_SPACES", WITHOUT_SPACES)):
        (listed,) = re.findall(rf"const {name} = (\[.*?\]);", script)
        assert json.loads(listed) == sorted(codes)
