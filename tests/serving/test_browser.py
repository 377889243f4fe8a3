"""The chat page in a real browser (headless Chromium), against a real server."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets", reason="the browser tests need websockets: pip install -e '.[dev]'")

from llm.serving.settings import Serving
from tests.serving.browser import Tab, chromium, executable
from tests.serving.conftest import FakeEngine, live, wait_until

if executable() is None:
    pytest.skip("chromium is not installed: apt-get install chromium", allow_module_level=True)

LAST = ".turn.assistant:last-of-type .text"
IDLE = "!controller"


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def base(engine: FakeEngine):
    with live(engine) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, base: str, engine: FakeEngine) -> Tab:
    """The page, freshly opened, with nothing remembered; the engine as new."""
    engine.__init__()  # type: ignore[misc]
    browser.size(1000, 800)
    browser.open(base)
    browser.evaluate("localStorage.clear()")
    browser.open(base)
    browser.wait("model && document.querySelector('.starters button')")
    browser.problems.clear()
    return browser


def say(tab: Tab, text: str) -> None:
    tab.evaluate("input.focus()")
    tab.type(text)
    tab.press("Enter")


def test_a_question_is_answered_while_it_is_written(tab: Tab, engine: FakeEngine) -> None:
    engine.reply, engine.pause = "a list holds things in order", 0.15
    assert tab.text("#model") == "fake"
    assert tab.evaluate("document.activeElement.id") == "input"
    say(tab, "What is a list?")
    tab.wait(f"document.querySelector({LAST!r})?.textContent.startsWith('a list')")
    assert tab.text(LAST) != engine.reply, "the whole answer came at once"
    tab.wait(IDLE)
    assert tab.text(LAST) == engine.reply
    assert tab.text(".turn.user .text") == "What is a list?"
    assert "6 tokens" in tab.text(".turn.assistant .under")
    assert "of 400 tokens of context" in tab.text("#context")
    assert tab.evaluate("document.activeElement.id") == "input"
    assert tab.problems == []


def test_the_whole_conversation_is_sent(tab: Tab, engine: FakeEngine) -> None:
    engine.reply = "first"
    say(tab, "one")
    tab.wait(IDLE)
    tab.click("#open-settings")
    tab.evaluate("byId('system').focus()")
    tab.type("be kind")
    tab.click("#done")
    say(tab, "two")
    tab.wait(IDLE)
    sent = engine.decode(engine.asked[-1][0])
    assert sent == "<system>be kind<user>one<assistant>first<user>two<assistant>"


HOSTILE = (
    '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> <svg onload=window.hacked=1> '
    '<a href="javascript:window.hacked=1">x</a> &lt;b&gt; '
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>"
)


def test_what_the_model_writes_is_shown_never_run(tab: Tab, engine: FakeEngine) -> None:
    engine.reply = HOSTILE
    tab.requests.clear()
    say(tab, HOSTILE)
    tab.wait(IDLE)
    assert tab.evaluate(f"document.querySelector({LAST!r}).textContent") == HOSTILE
    assert tab.evaluate("document.querySelector('.turn.user .text').textContent") == HOSTILE
    assert tab.evaluate("log.querySelectorAll('img, script, iframe, a').length") == 0
    assert tab.evaluate("typeof window.hacked") == "undefined"
    assert {request.rpartition("/")[2] for request in tab.requests} == {"completions"}
    assert tab.problems == []


def test_the_policy_holds_even_if_the_page_did_insert_html(tab: Tab) -> None:
    refused = """(() => {
        try { log.innerHTML = '<img src=x onerror=window.hacked=1>'; return false } catch { return true }
    })()"""
    assert tab.evaluate(refused)
    inserted = """new Promise((done) => {
        const script = document.createElement('script');
        try { script.textContent = 'window.hacked=1'; document.body.append(script); } catch { }
        setTimeout(() => done(typeof window.hacked), 50);
    })"""
    assert tab.evaluate(inserted) == "undefined"
    assert tab.evaluate("fetch('http://127.0.0.1:1/').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in problem for problem in tab.problems)


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop(tab: Tab, engine: FakeEngine, how: str) -> None:
    engine.pause = 0.02
    say(tab, "go on")
    tab.wait(f"document.querySelector({LAST!r})?.textContent.length > 10")
    assert tab.visible("#stop")
    assert not tab.visible("#send")
    tab.click("#stop") if how == "button" else tab.press("Escape")
    tab.wait(IDLE)
    wait_until(lambda: not engine.running)
    kept = tab.text(LAST)
    assert len(kept) > 10
    assert engine.pieces < 350
    assert "stopped" in tab.text(".turn.assistant .under")
    assert tab.visible("#send")
    engine.pause = 0
    say(tab, "and?")
    tab.wait(IDLE)
    assert kept in engine.decode(engine.asked[-1][0])


def test_an_error_of_the_server_is_shown_and_can_be_retried(tab: Tab, engine: FakeEngine) -> None:
    engine.reply = "fine now"
    tab.evaluate("settings.temperature = 9")
    say(tab, "hello")
    tab.wait("document.querySelector('.error')")
    assert "temperature" in tab.text(".error")
    assert tab.evaluate("document.querySelector('.error').getAttribute('role')") == "alert"
    assert tab.evaluate("log.querySelectorAll('.assistant').length") == 0
    tab.evaluate("settings.temperature = 1")
    tab.click(".error button")
    tab.wait(f"{IDLE} && !document.querySelector('.error')")
    assert tab.text(LAST) == "fine now"
    assert tab.evaluate("messages.length") == 2


def test_a_fault_in_the_middle_keeps_what_came(tab: Tab, engine: FakeEngine) -> None:
    engine.fail_after = 3
    say(tab, "hello")
    tab.wait(f"{IDLE} && document.querySelector('.error')")
    assert "failed" in tab.text(".error")
    assert tab.text(LAST).strip().startswith("w")
    assert "secret" not in tab.evaluate("document.body.innerText")


def test_a_server_that_is_gone(browser: Tab) -> None:
    with live(FakeEngine("yes")) as address:
        browser.open(address)
        browser.wait("model")
    say(browser, "still there?")
    browser.wait("document.querySelector('.error')")
    assert "cannot be reached" in browser.text(".error")
    assert browser.text("#state") == "not connected"


def test_the_oldest_messages_give_way(tab: Tab, engine: FakeEngine) -> None:
    engine.reply = "x" * 60
    for number in range(6):
        say(tab, f"question {number}")
        tab.wait(f"{IDLE} && messages.length")
    assert not tab.visible(".error")
    assert "left out" in tab.text(".note")
    last = engine.decode(engine.asked[-1][0])
    assert "question 5" in last
    assert "question 0" not in last
    assert last.startswith("<user>question")


def test_a_model_that_only_continues_text(engine: FakeEngine, browser: Tab) -> None:
    plain = FakeEngine(" a time")
    plain.chats = False
    with live(plain) as address:
        browser.open(address)
        browser.wait("model")
        assert "continues" in browser.text("#about")
        say(browser, "Once upon")
        browser.wait(IDLE)
        assert browser.text(LAST) == " a time"
        assert plain.decode(plain.asked[0][0]) == "Once upon"


def test_new_chat_while_the_model_writes(tab: Tab, engine: FakeEngine) -> None:
    engine.pause = 0.02
    say(tab, "go on")
    tab.wait("document.querySelector('.writing')")
    tab.click("#reset")
    wait_until(lambda: not engine.running)
    assert tab.visible("#welcome")
    assert not tab.visible("#log")
    assert tab.evaluate("messages.length") == 0
    engine.pause, engine.reply = 0, "fresh"
    say(tab, "again")
    tab.wait(IDLE)
    assert tab.evaluate("log.querySelectorAll('.turn').length") == 2
    assert engine.decode(engine.asked[-1][0]) == "<user>again<assistant>"


def test_settings_are_kept_and_restored(tab: Tab, base: str, engine: FakeEngine) -> None:
    tab.click("#open-settings")
    for field, text in (("seed", "42"), ("max-tokens", "7")):
        tab.evaluate(f"byId({field!r}).focus()")
        tab.type(text)
    tab.evaluate("byId('temperature').value = 0.5; byId('temperature').dispatchEvent(new Event('input'))")
    tab.press("Escape")
    tab.wait("!byId('settings').open")
    tab.open(base)
    tab.wait("model")
    say(tab, "hello")
    tab.wait(IDLE)
    settings = engine.asked[-1][1]
    assert (settings.seed, settings.max_new_tokens, settings.temperature) == (42, 7, 0.5)
    tab.click("#open-settings")
    tab.click("#defaults")
    assert tab.evaluate("byId('seed').value") == ""


def test_enter_and_shift_enter(tab: Tab, engine: FakeEngine) -> None:
    engine.reply = "ok"
    tab.type("one")
    tab.press("Enter", modifiers=8)
    tab.type("two")
    assert tab.evaluate("input.value") == "one\ntwo"
    tab.press("Enter")
    tab.wait(IDLE)
    assert engine.decode(engine.asked[-1][0]) == "<user>one\ntwo<assistant>"
    tab.press("Enter")  # an empty message is not sent
    assert len(engine.asked) == 1


@pytest.mark.parametrize("width", [320, 390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_width_and_contrasts(tab: Tab, engine: FakeEngine, width: int, scheme: str) -> None:
    engine.reply = "word " * 30 + "w" * 300
    tab.prefer(scheme)
    tab.size(width, 640, mobile=width < 600)
    say(tab, "https://example.org/" + "long" * 60)
    tab.wait(IDLE)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("scroller.scrollWidth <= scroller.clientWidth")
    assert tab.visible("#input")
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    contrast = """(() => {
        const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const page = getComputedStyle(document.body).backgroundColor;
        return ['.turn.assistant .text', '.under', '#context', '.quiet'].map((s) => {
            const e = document.querySelector(s); const [a, b] = [getComputedStyle(e).color, page].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
    })()"""
    assert min(tab.evaluate(contrast)) >= 4.5  # WCAG 2 AA
    tab.prefer("light")


def test_every_control_has_a_name(tab: Tab) -> None:
    unnamed = """[...document.querySelectorAll('button, input, textarea')].filter((e) =>
        !(e.getAttribute('aria-label') || e.innerText?.trim() || e.labels?.length)).map((e) => e.id)"""
    assert tab.evaluate(unnamed) == []


def test_a_queue_that_is_full(browser: Tab) -> None:
    engine = FakeEngine(pause=0.05)
    with live(engine, Serving(port=0, max_waiting=0)) as address:
        import httpx

        with httpx.stream(
            "POST", f"{address}v1/completions", json={"prompt": "a", "max_tokens": 200, "stream": True}
        ):
            browser.open(address)
            browser.wait("model")
            say(browser, "hello")
            browser.wait("document.querySelector('.error')")
            assert "busy" in browser.text(".error")
