"""An hour in the device console: `python -m tests.bench.console --minutes 60`, beside a running `make run`.

It opens the console in Chromium as a clinician, says one text after another and prints a line each minute: speeches,
gaps that the page has noticed, the heap of the page after a garbage collection, its nodes and event listeners, and the
resident memory of all processes of the browser. It ends with an error if a speech is not played.
"""

import argparse
import time

from playwright.sync_api import CDPSession, Page, expect

from tests.browser.chromium import launched

TEXT = "It is half past eight, and the sun is out. Would you like to hear what is planned for today? " * 2
SPEECH_TIMEOUT_MS = 60_000
START_TIMEOUT_MS = 30_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--user", default="clinician")
    parser.add_argument("--password", required=True, help="of the demo: `make run` prints it")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--format", default="", help="of the audio, for example pcm_24000; default: MP3")
    options = parser.parse_args()
    with launched("--autoplay-policy=no-user-gesture-required", "--enable-precise-memory-info") as browser:
        page = browser.new_page()
        _log_in(page, options.url, options.user, options.password)
        _start(page, options.format)
        _measure(page, browser.new_browser_cdp_session(), options.minutes)


def _log_in(page: Page, url: str, user: str, password: str) -> None:
    page.goto(f"{url}/console/")
    page.get_by_label("Username").fill(user)
    page.locator("input[type=password]").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Try in the browser").first.click()


def _start(page: Page, audio: str) -> None:
    page.wait_for_load_state()
    page.get_by_label("Audio").select_option(audio)
    page.get_by_label("Begin with the greeting").set_checked(False)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_text("Connected", timeout=START_TIMEOUT_MS)


def _measure(page: Page, browser: CDPSession, minutes: float) -> None:
    devtools = page.context.new_cdp_session(page)
    begin = time.monotonic()
    speeches, minute = 0, 0
    print("minute  speeches  gaps  first sound  heap MB  nodes  listeners  browser MB")
    while minute < minutes:
        speeches += 1
        page.get_by_label("Text", exact=True).fill(f"{speeches}. {TEXT}")
        page.get_by_role("button", name="Speak", exact=True).click()
        newest = page.locator("#speeches li").first
        expect(newest).to_contain_text(f"{speeches}. It is")
        expect(newest.locator(".badge").first).to_have_text("played", timeout=SPEECH_TIMEOUT_MS)
        page.wait_for_function("() => parseFloat(document.querySelector('#ahead').textContent) < 0.3")
        if time.monotonic() - begin >= 60 * (minute + 1):
            minute += 1
            print(f"{minute:6}  {speeches:8}  {_figures(page, devtools, browser)}", flush=True)


def _figures(page: Page, devtools: CDPSession, browser: CDPSession) -> str:
    devtools.send("HeapProfiler.collectGarbage")
    heap = devtools.send("Runtime.getHeapUsage")["usedSize"] / 1e6
    counters = devtools.send("Memory.getDOMCounters")
    processes = browser.send("SystemInfo.getProcessInfo")["processInfo"]
    resident = sum(_resident_mb(process["id"]) for process in processes)
    shown = [page.locator(f"#{name}").inner_text() for name in ("gaps", "first-sound")]
    return f"{shown[0]}  {shown[1]}  {heap:.2f}  {counters['nodes']}  {counters['jsEventListeners']}  {resident:.0f}"


def _resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
