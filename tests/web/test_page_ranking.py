"""The ranking page in a browser: what people do in it arrives in the store as they did it."""

import re
from collections.abc import Iterator

import pytest
from tests.web.page_server import ANSWERS, CHROMIUM, HOSTILE, Site, need_chromium, site

need_chromium()
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright  # noqa: E402


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("rankings")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened.set_default_timeout(8_000)
    yield opened
    opened.close()


def enter(context: BrowserContext, pages: Site, name: str) -> Page:
    """The page as somebody new sees it; a script error or a violated content policy fails the test."""
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.goto(pages.person(name))
    page.problems = problems  # type: ignore[attr-defined]
    return page


def leave(page: Page) -> None:
    assert page.problems == []  # type: ignore[attr-defined]


def number(page: Page, label: str) -> int:
    """Where the answer that is shown under a letter stands in the task; its text tells, the page itself does not."""
    return ANSWERS.index(page.locator(f".answer[data-label={label}] .text").text_content() or "")


def letter(page: Page, answer: int) -> str:
    """The letter that an answer of the task is shown under."""
    return next(label for label in "ABCD" if number(page, label) == answer)


def tiers(page: Page, **by_label: int) -> tuple[int, ...]:
    """Tiers in the order of the task, from tiers by letter; the others are unranked."""
    found = [-1] * len(ANSWERS)
    for label, tier in by_label.items():
        found[number(page, label)] = tier
    return tuple(found)


def state(page: Page, label: str) -> str:
    return page.locator(f".answer[data-label={label}] .state").inner_text()


def drag(page: Page, source: str, row: int | str, share: float = 0.5) -> None:
    """Drag a chip or handle onto a row of the board, at a share of its height."""
    page.locator(source).scroll_into_view_if_needed()
    start = page.locator(source).bounding_box()
    target = page.locator(f".row[data-rank='{row}']").bounding_box()
    assert start and target
    page.mouse.move(start["x"] + 16, start["y"] + 16)
    page.mouse.down()
    page.mouse.move(target["x"] + 120, target["y"] + target["height"] / 2, steps=4)
    page.mouse.move(target["x"] + 120, target["y"] + target["height"] * share, steps=2)
    page.mouse.up()


def submit(page: Page) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name="Submit ranking").click()


def test_drag_with_a_tie_and_an_unranked_answer(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "drags")
    drag(page, ".chip[data-label=B]", 1)
    drag(page, ".chip[data-label=A]", 2)
    drag(page, ".answer[data-label=D] .letter", 2)  # from the answer itself
    expect(page.locator(".row[data-rank='2'] .chip")).to_have_count(2)
    assert state(page, "A") == "rank 2, tied with D"
    expected, shown = tiers(page, B=0, A=1, D=1), tuple(number(page, label) for label in "ABCD")
    submit(page)
    (ranking,) = pages.rankings("drags")
    assert (ranking.tiers, ranking.displayed) == (expected, shown)
    assert ranking.seconds is not None
    leave(page)


def test_a_drop_on_an_edge_makes_a_rank_in_between(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "between")
    for label, row in (("A", 1), ("B", 2)):
        drag(page, f".chip[data-label={label}]", row)
    drag(page, ".chip[data-label=C]", 2, share=0.1)
    assert [state(page, label) for label in "ABC"] == ["rank 1", "rank 3", "rank 2"]
    page.locator(".chip[data-label=C]").hover()
    page.mouse.down()
    page.mouse.move(700, 500, steps=4)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert state(page, "C") == "rank 2"
    leave(page)


def test_touch(browser: Browser, pages: Site) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = enter(context, pages, "touches")
    page.locator("#board").scroll_into_view_if_needed()
    session = context.new_cdp_session(page)
    for label, row in (("C", 1), ("A", 1), ("B", 3)):
        _rest(page)
        start = page.locator(f".chip[data-label={label}] .letter").bounding_box()
        target = page.locator(f".row[data-rank='{row}']").bounding_box()
        assert start and target
        points = [(start["x"] + 9, start["y"] + 9), (target["x"] + 70, target["y"] + target["height"] / 2)]
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [_point(*points[0])]})
        for part in (0.3, 0.7, 1.0, 1.0):
            page.wait_for_timeout(60)  # a finger is no faster, and on a busy machine a frame takes its time
            x, y = (a + part * (b - a) for a, b in zip(*points, strict=True))
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [_point(x, y)]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        # the page has taken it in, or the places of the next drag would be those of before
        expect(page.locator(f".answer[data-label={label}] .state")).to_have_text(re.compile(rf"^rank {row}"))
    expected = tiers(page, C=0, A=0, B=1)  # the gap closes in the store
    submit(page)
    assert pages.rankings("touches")[0].tiers == expected
    leave(page)
    context.close()


def _rest(page: Page) -> None:
    """Wait until the chips that slide to their new places are there: places measured on the way hit nothing."""
    page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")


def _point(x: float, y: float) -> dict[str, float]:
    return {"x": x, "y": y}


def test_keyboard_alone(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "keys")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link past the bar
    page.keyboard.press("Tab")  # "Compare two"
    page.keyboard.press("Tab")
    for keys in (["2"], ["2"], ["1"], ["4", "Backspace", "ArrowUp", "ArrowUp", "ArrowUp"]):
        for key in keys:
            page.keyboard.press(key)
        page.keyboard.press("Tab")
    # D came in below, joined the tie of A and B, and went past it to a rank of its own
    assert [state(page, label) for label in "ABCD"] == [
        "rank 3, tied with B",
        "rank 3, tied with A",
        "rank 1",
        "rank 2",
    ]
    expect(page.locator("#announce")).to_have_text("Answer D: rank 2. Other ranks moved too")
    expected = tiers(page, A=2, B=2, C=0, D=1)
    for _ in range(20):
        if page.evaluate("document.activeElement.id") == "submit":
            break
        page.keyboard.press("Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert pages.rankings("keys")[0].tiers == expected
    expect(page.locator("#outcome")).to_have_text("Your last ranking is stored.")
    leave(page)


def test_arrows_down_and_keys_that_mean_nothing(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "arrows")
    for key in ("a", "1", "b", "1", "ArrowDown"):
        page.keyboard.press(key)
    assert (state(page, "A"), state(page, "B")) == ("rank 1", "rank 2")
    page.keyboard.press("ArrowDown")
    assert state(page, "B") == "unranked"
    page.keyboard.press("7")
    expect(page.locator("#announce")).to_have_text("Ranks go from 1 to 4")
    page.keyboard.press("Enter")  # on a rank: sends nothing
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Single letters and ? work as keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert pages.rankings("arrows") == []
    leave(page)


def test_without_javascript(browser: Browser, pages: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages.person("plain"))
    page.get_by_role("button", name="Submit ranking").click()
    assert "rank" in page.get_by_role("alert").inner_text()  # nothing was ranked: said, and nothing lost
    for label, rank in (("A", 3), ("B", 3), ("C", 1)):
        page.get_by_role("group", name=f"Rank of answer {label}").get_by_label(f"Rank {rank}").check()
    page.get_by_label("All are bad").check()
    page.get_by_label("Clearly").check()
    page.get_by_label("Why?").fill("C says it first")
    page.get_by_text("Write a better answer").click()
    page.get_by_label("Starting from").select_option(label="Answer C")
    page.get_by_label("Better answer", exact=True).fill("\nThe moon pulls.\nThe sea follows.")
    expected, source = tiers(page, C=0, A=1, B=1), number(page, "C")
    page.get_by_role("button", name="Submit ranking").click()
    (ranking,) = pages.rankings("plain")
    assert ranking.tiers == expected
    assert (ranking.all_bad, ranking.strength, ranking.note) == (True, 2.0, "C says it first")
    assert ranking.edited is not None and ranking.edited.strip() == "The moon pulls.\nThe sea follows."
    assert ranking.edited_from == source

    page.get_by_text("Skip this task").click()
    page.get_by_label("Why can it not be ranked?").fill("not in English")
    page.get_by_role("button", name="Skip without ranking").click()
    assert [ranking.skipped for ranking in pages.rankings("plain")] == [None, "not in English"]

    page.get_by_role("link", name="Correct the last one").click()
    assert page.get_by_label("Why can it not be ranked?").input_value() == "not in English"
    context.close()


def test_a_correction_shows_what_was_given_and_supersedes_it(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "corrects")
    for key in ("a", "1", "b", "2"):
        page.keyboard.press(key)
    submit(page)
    with page.expect_navigation():
        page.get_by_role("link", name="Correct the last one").click()
    assert [state(page, label) for label in "ABCD"] == ["rank 1", "rank 2", "unranked", "unranked"]
    page.keyboard.press("a")
    page.keyboard.press("2")
    expected = tiers(page, A=0, B=0)
    submit(page)
    (ranking,) = pages.rankings("corrects")
    assert ranking.tiers == expected and ranking.supersedes
    leave(page)


def test_hostile_answers_stay_text(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "hostile")
    hostile = letter(page, ANSWERS.index(HOSTILE))
    card = page.locator(f".answer[data-label={hostile}]")
    assert card.locator(".text").text_content() == HOSTILE
    page.locator("#compare-open").click()
    page.locator("#compare-left").select_option(label=f"Answer {hostile}")
    page.keyboard.press("Escape")
    page.get_by_text("Write a better answer").click()
    page.get_by_label("Starting from").select_option(label=f"Answer {hostile}")
    expect(page.get_by_label("Better answer", exact=True)).to_have_value(HOSTILE)
    assert page.evaluate("window.broken") is None
    assert page.locator(".answer img, .answer script, #compare img, .chip img").count() == 0
    leave(page)


def test_draft_survives_a_reload_and_goes_when_stored(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "drafts")
    for key in ("a", "2", "c", "1"):
        page.keyboard.press(key)
    page.get_by_label("Why?").fill("because")
    page.reload()
    assert [state(page, label) for label in "ABCD"] == ["rank 2", "unranked", "rank 1", "unranked"]
    expect(page.get_by_label("Why?")).to_have_value("because")
    submit(page)
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('trivium:draft'))") == []
    assert state(page, "A") == "unranked"
    leave(page)


def test_undo_and_redo(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "undoes")
    for key in ("a", "1", "b", "1", "b", "3"):
        page.keyboard.press(key)
    page.get_by_label("All are bad").check()
    page.keyboard.press("Control+z")
    expect(page.get_by_label("All are bad")).not_to_be_checked()
    page.keyboard.press("Control+z")
    expect(page.locator("#announce")).to_have_text("Undone. Answer B: rank 1, tied with A")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    assert state(page, "A") == state(page, "B") == "unranked"
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.keyboard.press("Control+Shift+z")
    assert state(page, "A") == "rank 1"
    leave(page)


def test_double_click_and_lost_answers_store_one_ranking(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "twice")
    for key in ("a", "1", "b", "2"):
        page.keyboard.press(key)
    keys: list[str] = []

    def lose_the_first_answer(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        keys.append(re.findall("key=([^&]+)", route.request.post_data or "")[0])
        response = route.fetch(max_redirects=0)  # it arrives …
        return route.abort() if len(keys) == 1 else route.fulfill(response=response)  # … but its answer does not

    page.route("**/rank", lose_the_first_answer)
    with page.expect_navigation():
        page.get_by_role("button", name="Submit ranking").dblclick(no_wait_after=True)
    assert len(keys) == 2 and len(set(keys)) == 1
    assert len(list(pages.store.rankings(superseded=True, annotators=["twice"]))) == 1
    leave(page)


def test_what_is_missing_is_said_and_led_to(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "misses")
    page.keyboard.press("a")
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("Rank at least two answers")
    page.get_by_role("link", name="Go to answer B").click()
    assert page.evaluate("document.activeElement.closest('.answer').dataset.label") == "B"
    page.get_by_text("Skip this task").click()
    page.get_by_role("button", name="Skip without ranking").click()
    page.get_by_role("link", name="Go to the reason").click()
    page.keyboard.type("I cannot read it")
    page.get_by_text("Report a problem with this task").click()
    page.get_by_label("What is wrong?").fill("broken prompt")
    page.get_by_label("Why can it not be ranked?").focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    (ranking,) = pages.rankings("misses")
    assert (ranking.skipped, ranking.flags) == ("I cannot read it", ("broken prompt",))
    assert set(ranking.tiers) == {-1}
    leave(page)


def test_differences(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "compares")
    page.get_by_role("button", name="Compare two").click()
    first, third = (f"Answer {letter(page, answer)}" for answer in (0, 2))
    page.locator("#compare-left").select_option(label=first)
    page.locator("#compare-right").select_option(label=third)
    assert page.locator("#compare-a").text_content() == ANSWERS[0]
    assert page.locator("#compare-b").text_content() == ANSWERS[2]
    assert page.locator("#compare-a del").all_text_contents()[0].split() == ["moon", "pulls", "on"]
    assert page.locator("#compare-b ins").all_text_contents()[0].split() == ["sun", "heats"]
    page.locator("#compare-right").select_option(label=first)
    expect(page.locator("#compare-summary")).to_have_text("The two are the same, letter by letter.")
    rejoined = page.evaluate(
        """async () => {
          const { difference } = await import("/static/difference.js");
          const pieces = ["a", "b", " ", "  ", "\\n", "\\n\\n", "one", ".", "猫", "é"];
          let seed = 7;
          const next = () => (seed = (seed * 48271) % 2147483647);
          const text = () => Array.from({ length: next() % 30 }, () => pieces[next() % pieces.length]).join("");
          for (let round = 0; round < 300; round += 1) {
            const [left, right] = [text(), text()];
            const parts = difference(left, right);
            const of = (side) => parts.filter(({ kind }) => kind === "same" || kind === side);
            const join = (side) => of(side).map(({ text }) => text).join("");
            if (join("left") !== left || join("right") !== right) return [left, right, parts];
          }
          return "all";
        }"""
    )
    assert rejoined == "all"
    leave(page)


def test_an_arrow_down_takes_back_an_arrow_up(context: BrowserContext, pages: Site) -> None:
    page = enter(context, pages, "orders")
    failed = page.evaluate(
        """async () => {
          const { better, worse, dense } = await import("/static/order.js");
          const same = (a, b) => a.join() === b.join();
          for (let code = 0; code < 5 ** 4; code += 1) {
            const ranks = dense([0, 1, 2, 3].map((place) => Math.floor(code / 5 ** place) % 5));
            for (const index of [0, 1, 2, 3]) {
              const up = better(ranks, index);
              if (!same(up, ranks) && !same(worse(up, index), ranks)) return [ranks, index];
              const down = worse(ranks, index);
              if (!same(down, ranks) && !same(better(down, index), ranks) && down[index]) return [ranks, index];
              if (!same(up, dense(up)) || !same(down, dense(down))) return [ranks, index];
            }
          }
          return null;
        }"""
    )
    assert failed is None
    leave(page)
