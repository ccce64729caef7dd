"""The page is a function of the store: whole for any store, escaped everywhere, and it asks the network for nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import EVIL, Memory, full
from plotly.offline import get_plotlyjs

from archgrad.records import Job, Status, Step, Trial
from archgrad.reports.html import render, write_report

SECTIONS = ["verdict", "progress", "policy", "size", "network", "failures", "run"]
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "rect"}


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data


def killed() -> Memory:
    run = full()
    metas = {name: run.meta(name) for name in ("run", "space", "data", "config")}
    return Memory(run.trials()[:31], run.steps()[:9], metas)


def nan() -> Memory:
    job = [Job(i, "search", ("a",), i, 1) for i in range(3)]
    metrics = dict.fromkeys(("valid_loss", "valid_accuracy", "params", "macs"), math.nan)
    trials = [Trial(job[0], metrics, 1.0), Trial(job[1], {"valid_loss": math.inf}, 1.0), Trial(job[2], {}, 1.0, "x")]
    best = {"architecture": {"d": "a"}, "valid_loss": None, "test_accuracy": math.nan, "params": None}
    metas = {"summary": {"best": best, "verdict": []}, "space": {"decisions": [{"name": "d", "options": ["a"]}]}}
    return Memory(trials, [Step(0, [], {}), Step(1, [[math.nan]], {})], metas)


STORES = {"full": full, "empty": lambda: Memory([], [], {}), "killed": killed, "nan": nan}


@pytest.fixture(scope="module", params=list(STORES))
def page(request: pytest.FixtureRequest) -> tuple[str, str, Page]:
    text = render(STORES[request.param]())
    return request.param, text, Page(text)


def test_every_store_gives_every_section(page: tuple[str, str, Page]) -> None:
    _, text, parsed = page
    assert [i for i in parsed.ids if i in SECTIONS] == SECTIONS
    assert len(parsed.ids) == len(set(parsed.ids))
    assert text.lstrip().startswith("<!DOCTYPE html>")
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_nothing_is_requested(page: tuple[str, str, Page]) -> None:
    _, text, parsed = page
    own = text.replace(get_plotlyjs(), "")
    assert "http://" not in own
    assert "https://" not in own
    assert "url(" not in re.sub(r"url\(#tip\)", "", own)
    assert "@import" not in own
    assert not [tag for tag, _ in parsed.tags if tag in {"link", "iframe", "img", "object", "embed", "base"}]
    assert not [attrs for _, attrs in parsed.tags if "src" in attrs]
    policy = next(attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_user_text_is_never_markup(page: tuple[str, str, Page]) -> None:
    name, text, parsed = page
    own = text.replace(get_plotlyjs(), "")
    assert "<script>alert" not in own
    expected = [{}, {"type": "application/json", "id": "data"}, {}] if len(parsed.scripts) else []
    assert [attrs for tag, attrs in parsed.tags if tag == "script"] == expected
    if name == "full":
        assert parsed.text.count(EVIL) >= 10  # title, verdict, errors, decisions, options, classes, config, drawing
        data = parsed.scripts[1]
        assert "alert" in data
        assert not set("<>&") & set(data)
        shown = json.loads(data)["beliefs"][-1]["data"][-1]["name"]
        assert shown == "7 &amp; &lt;script&gt;…t(1)&lt;/script&gt;"  # plotly reads HTML of its own


def test_headings_of_tables_and_names_of_figures(page: tuple[str, str, Page]) -> None:
    _, _, parsed = page
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in parsed.tags if tag == "th")
    named = [a for tag, a in parsed.tags if a.get("role") in ("img", "region")]
    assert all(attrs.get("aria-label") for attrs in named)


def figures(text: str) -> dict[str, Any]:
    return json.loads(Page(text).scripts[1])["figures"]


def test_full_run() -> None:
    text = render(full())
    parsed = Page(text)
    assert Status.FINISHED.value in parsed.text
    assert "93.1% ± 0.4%" in parsed.text
    assert parsed.text.count("93.1%") == 1  # a test number is shown in the summary table only
    assert "164 evaluations: 1 default (3 epochs), 80 search (3 epochs)" in parsed.text
    assert "12 evaluations failed" in parsed.text
    assert "3f9a1c" in parsed.text
    assert "about 10^16.9" in parsed.text  # 7 options for each of 20 decisions
    assert set(figures(text)) == {f"figure-{name}" for name in ("progress", "certainty", "params", "macs")}
    assert sum(attrs.get("class") == "node" for _, attrs in parsed.tags) == len(full().meta("network")["nodes"])


def test_only_the_first_failures_are_listed() -> None:
    trials = [Trial(Job(i, "search", ("a",), i, 1), {}, 1.0, f"reason {i}") for i in range(33)]
    parsed = Page(render(Memory(trials, [], {})))
    assert "33 evaluations failed; the first 20 are listed." in " ".join(parsed.text.split())
    assert "reason 19" in parsed.text
    assert "reason 20" not in parsed.text


def test_a_killed_run_says_so() -> None:
    run = killed()
    text = " ".join(Page(render(run)).text.split())
    assert "has not ended, or was stopped from outside" in text
    assert "there is no test accuracy and no verdict" in text
    losses = [t.metrics["valid_loss"] for t in run.trials() if t.error is None]
    assert f"The lowest validation loss so far is {min(v for v in losses if math.isfinite(v)):.4g}" in text
    assert "±" not in text


def test_an_empty_page_is_small() -> None:
    text = render(Memory([], [], {}))
    assert len(text) < 20_000
    assert "Nothing has been evaluated yet." in text


def test_numbers_that_look_like_names_and_the_reverse() -> None:
    space = {"decisions": [{"name": "1", "options": ["3", "2020-01-01"], "when": []}], "name": None}
    text = render(Memory([], [Step(0, [[0.25, 0.75, 0.0]], {})], {"space": space}))
    shown = json.loads(Page(text).scripts[1])
    assert [t["name"] for t in shown["beliefs"][0]["data"]] == ["3", "2020-01-01"]  # the padding is no option
    assert shown["figures"]["figure-certainty"]["layout"]["yaxis"]["ticktext"] == ["1"]


def test_a_space_beyond_all_floats() -> None:
    assert "about 10^400.0" in render(Memory([], [], {"space": {"size": 10**400}}))
    assert "1,234" in render(Memory([], [], {"space": {"size": 1234}}))


def test_the_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(killed(), path)
    before = path.read_text(encoding="utf-8")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("archgrad.reports.html.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(full(), path)
    assert path.read_text(encoding="utf-8") == before
    assert list(path.parent.iterdir()) == [path]


def test_the_browser_draws_it(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine: the page is checked as text only")
    path = tmp_path / "report.html"
    write_report(full(), path)
    # Errors become part of the page, so that one dump of the document tells everything.
    probe = "<script>addEventListener('error', e => document.body.dataset.failed = e.message || 'resource')</script>"
    policy = "addEventListener('securitypolicyviolation', e => document.body.dataset.blocked = e.blockedURI)"
    text = path.read_text(encoding="utf-8").replace("<main>", f"{probe}<script>{policy}</script><main>", 1)
    path.write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=60, check=False)
    page = done.stdout
    assert page.count('class="main-svg"') >= 5, done.stderr[-2000:]
    body = re.search(r"<body[^>]*>", page)
    assert body is not None
    assert "data-failed" not in body[0]
    assert "data-blocked" not in body[0]
