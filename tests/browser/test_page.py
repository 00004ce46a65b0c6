"""The page of a run, in a browser. That it logs no error and fetches nothing is asked at the end of every test (`open_page`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feldman.data.load import load_dataset
from feldman.trials.store import TrialStore
from tests.browser.conftest import Open, Opened
from tests.pages import CLASS_NAMES, image_arrays, page_data

Row = dict[str, Any]


def table(page: Path, name: str) -> list[Row]:
    rows: list[Row] = pq.read_table(page.parent / f"{name}.parquet").to_pylist()
    return rows


def strongest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row["influence"], row["train_index"], row["test_index"]))


def number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def first_number(text: str) -> float:
    found = re.search(r"[−-]?\d+\.\d+", text)
    assert found is not None, text
    return float(found.group().replace("−", "-"))


def shown_pairs(opened: Opened) -> list[tuple[int, int]]:
    """The pairs of the page of the list that is shown and of those after it."""
    names: list[str] = opened.page.evaluate("""() => {
        const [found, next] = [[], document.getElementById("pair-next")];
        for (;;) {
            found.push(...[...document.querySelectorAll("#pair-rows .name")].map((name) => name.textContent));
            if (next.disabled) return found;
            next.click();
        }
    }""")
    return [(int(train.split()[1]), int(test.split()[1])) for train, test in zip(names[::2], names[1::2], strict=True)]


def test_names_are_shown_as_text_and_run_nothing(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    assert opened.texts("#memorization-class option") == ["all", *CLASS_NAMES]
    assert opened.texts("#gallery h3") == [CLASS_NAMES[0], CLASS_NAMES[1], "Class 0"]
    assert opened.page.locator("script").count() == 2
    assert opened.page.locator("main b, main img:not(figure img)").count() == 0
    assert opened.text("#studies figcaption") == "The figure <b>&amp;.svg. <b>&amp;.svg"
    figure = opened.page.locator("#studies img")
    assert figure.get_attribute("alt") == "The figure <b>&amp;.svg."
    assert figure.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [300, 120]


def test_what_a_name_would_run_is_refused_by_the_pages_policy(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    blocked = opened.page.evaluate("""() => new Promise((told) => {
        document.addEventListener("securitypolicyviolation", (event) => told(event.violatedDirective));
        const script = document.createElement("script");
        script.textContent = "alert(5)";
        document.body.append(script);
    })""")
    assert blocked == "script-src-elem"
    assert [message for message in opened.messages if "dialog" in message] == []
    opened.messages.clear()  # the refusal


PIXELS = """async (canvas) => {
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  for (;;) {
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    if (data[3] > 0) return [...data];
    await new Promise(requestAnimationFrame);  // the sheet is still being decoded
  }
}"""


def test_a_picture_has_the_pixels_of_its_example(open_page: Open, image_page: Path) -> None:
    opened, arrays = open_page(image_page), image_arrays()
    chosen = (
        "#chosen .large",
        "#pair-rows tr:nth-child(1) td:nth-child(1)",
        "#pair-rows tr:nth-child(7) td:nth-child(2)",
    )
    for selector in chosen:
        canvas = opened.page.locator(f"{selector} canvas")
        part, index = re.findall(
            r"^Picture of (train|test)(?:ing)? example (\d+), ", str(canvas.get_attribute("aria-label"))
        )[0]
        pixels = np.array(canvas.evaluate(PIXELS)).reshape(6, 5, 4)
        np.testing.assert_array_equal(pixels[..., :3], arrays[f"x_{part}"][int(index)])


def test_the_histogram_counts_every_training_example_and_follows_the_class(open_page: Open, image_page: Path) -> None:
    opened, rows = open_page(image_page), table(image_page, "memorization")
    for label in (None, 0, 1, 2):
        opened.page.locator("#memorization-class").select_option("" if label is None else str(label))
        values = np.array([row["memorization"] for row in rows if label in (None, row["label"])])
        edges = [float(text.replace("−", "-")) for text in opened.texts("#histogram .edge")]
        counts = [int(text) for text in opened.texts("#histogram .count")]
        bins = np.floor(values / 0.05 + 1e-9).clip(None, 19)
        assert counts == [int((bins == round(edge / 0.05)).sum()) for edge in edges]
        assert sum(counts) == len(values)
        assert f"{len(values)} training examples have memorization from" in opened.text("#memorization-status")


def test_the_gallery_shows_the_most_memorized_of_each_class_and_of_the_range(open_page: Open, image_page: Path) -> None:
    opened, rows = open_page(image_page), table(image_page, "memorization")
    for label, part in enumerate(opened.page.locator(".class-part").all()):
        own = sorted((-row["memorization"], row["train_index"]) for row in rows if row["label"] == label)
        names = part.locator(".examples:first-child .name").all_inner_texts()
        assert names == [f"train {index}" for _, index in own[:6]]
        assert part.locator(".examples:first-child strong").all_inner_texts() == [
            number(-value) for value, _ in own[:6]
        ]
        assert part.locator(".examples:last-child .name").count() == 3
    opened.page.locator("#memorization-low").select_option("0.25")
    opened.page.locator("#memorization-high").select_option("0.50")
    within = [row for row in rows if 0.25 <= row["memorization"] < 0.5]
    values = [first_number(text) for text in opened.texts("#gallery .estimate")]
    assert values
    assert all(0.25 <= value <= 0.5 for value in values)
    assert opened.text("#memorization-status").startswith(
        f"{len(within)} training examples have memorization from 0.25 to 0.50; "
    )
    opened.page.locator("#memorization-filters button").click()
    assert opened.text("#memorization-status").startswith("90 training examples")


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_an_example_is_found_by_its_number_with_what_it_decides_or_what_decides_it(
    open_page: Open, image_page: Path, part: str, other: str
) -> None:
    pairs = strongest_first(table(image_page, "influence"))
    index = pairs[3][f"{part}_index"]
    opened = open_page(image_page)
    opened.page.locator("#example-part").select_option(part)
    opened.page.locator("#example-index").fill(str(index))
    opened.page.locator("#example-index").press("Enter")
    own = [row for row in pairs if row[f"{part}_index"] == index]
    if opened.page.locator("#chosen-more").count():
        opened.page.locator("#chosen-more").click()
    assert opened.texts("#chosen .tiles .name") == [f"{other} {row[f'{other}_index']}" for row in own]
    assert opened.texts("#chosen .tiles strong") == [number(row["influence"]) for row in own]
    for text, row in zip(opened.texts("#chosen .tiles .estimate span.reach"), own, strict=True):
        low, high = (float(bound.replace("−", "-")) for bound in text.split(" to "))
        assert low == pytest.approx(row["ci_low"], abs=0.0051)
        assert high == pytest.approx(row["ci_high"], abs=0.0051)
    word = {"train": "Training", "test": "Test"}[part]
    assert opened.text("#chosen h3") == f"{word} example {index}"
    assert opened.page.evaluate("document.activeElement.id") == "chosen-title"
    assert opened.page.url.endswith(f"#view=influence&example={part}-{index}")
    if part == "train":
        (row,) = (row for row in table(image_page, "memorization") if row["train_index"] == index)
        assert f"{row['correct_in']} of {row['num_in']} times" in opened.text("#chosen dl")
        assert f"{row['correct_out']} of {row['num_out']} times" in opened.text("#chosen dl")


def test_an_example_that_is_not_on_the_page_is_told_with_the_command_that_knows_it(
    open_page: Open, image_page: Path
) -> None:
    opened = open_page(image_page, "#example=train-4711")
    assert "Training example 4711 is not on this page" in opened.text("#influence-status")
    assert "feldman pairs RUN --train 4711" in opened.text("#influence-status")
    assert opened.text("#chosen") == ""


def test_pairs_are_sorted_by_every_column_both_ways(open_page: Open, image_page: Path) -> None:
    opened, rows = open_page(image_page), table(image_page, "influence")
    by_pair = {(row["train_index"], row["test_index"]): row for row in rows}
    columns = {
        "train": "train_index",
        "test": "test_index",
        "influence": "influence",
        "memorization": "memorization",
        "q": "q_value",
    }
    for name, column in columns.items():
        directions = set()
        for _ in range(2):
            opened.page.locator(f"[data-sort={name}]").click()
            direction = str(opened.page.locator(f"th:has([data-sort={name}])").get_attribute("aria-sort"))
            directions.add(direction)
            assert opened.page.locator("th[aria-sort=none]").count() == 4
            names = [int(text.split()[1]) for text in opened.texts("#pair-rows .name")]
            found = [by_pair[pair][column] for pair in zip(names[::2], names[1::2], strict=True)]
            expected = sorted((row[column] for row in rows), reverse=direction == "descending")[:20]
            assert found == pytest.approx(expected, rel=0.06 if name == "q" else 0), (
                "q-values are written with two digits"
            )
        assert directions == {"ascending", "descending"}
    assert opened.page.evaluate("document.activeElement.dataset.sort") == "q", "the focus stays"
    opened.page.locator("#pair-filters button").click()
    assert shown_pairs(opened) == [(row["train_index"], row["test_index"]) for row in strongest_first(rows)]


def test_pairs_are_those_that_satisfy_all_filters(open_page: Open, image_page: Path) -> None:
    opened, rows = open_page(image_page), strongest_first(table(image_page, "influence"))
    page = opened.page

    def expect(condition: Any) -> None:
        expected = [(row["train_index"], row["test_index"]) for row in rows if condition(row)]
        assert opened.text("#pair-status") == f"{len(expected)} of the {len(rows)} pairs on this page."
        assert (shown_pairs(opened) if expected else []) == expected

    page.locator("#pair-class").select_option("1")
    expect(lambda row: 1 in (row["train_label"], row["test_label"]))
    page.locator("#pair-same").check()
    expect(lambda row: row["train_label"] == row["test_label"] == 1)
    page.locator("#pair-min").fill("0.2")
    expect(lambda row: row["train_label"] == row["test_label"] == 1 and row["influence"] >= 0.2)
    page.locator("#pair-filters button").click()
    expect(lambda row: True)
    page.locator("#pair-sure").check()
    expect(lambda row: row["q_value"] <= 0.05)


def test_the_page_is_used_by_keyboard_alone(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    page = opened.page
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.textContent"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0"), "seen while it has the focus"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "memorization-title"
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
    assert seen[:3] == ["memorization-class", "memorization-low", "memorization-high"]
    assert seen[4] == "within", "the histogram is one stop"
    bar = "document.activeElement.dataset.bin"
    first = int(page.evaluate(bar.replace("activeElement", "querySelector('#histogram [tabindex=\"0\"]')")))
    page.locator("#histogram [tabindex='0']").focus()
    for key, step in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert int(page.evaluate(bar)) == first + step
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash").endswith("low=0.95&high=1.00")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true", "the focus stays"
    page.keyboard.press("Enter")
    assert "low" not in page.evaluate("location.hash")
    page.locator("#gallery a").first.focus()
    chosen = opened.texts("#gallery .name")[0]
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "chosen-title"
    assert opened.text("#chosen h3") == f"Training example {chosen.split()[1]}"
    page.go_back()
    assert opened.text("#chosen h3") != f"Training example {chosen.split()[1]}"


def test_everything_that_has_the_focus_shows_it(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    for selector in ("#memorization-class", "#gallery a", "#pair-min", "[data-sort=q]"):
        opened.page.locator(selector).first.focus()
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2


def test_an_address_brings_another_person_to_the_same_view(open_page: Open, image_page: Path) -> None:
    first = open_page(image_page)
    page = first.page
    page.locator("#memorization-class").select_option("2")
    page.locator("#memorization-low").select_option("0.10")
    page.locator("#pair-same").check()
    page.locator("[data-sort=memorization]").click()
    page.locator("#pair-next").click()
    page.locator("#pair-rows a").first.click()
    second = open_page(image_page, page.evaluate("location.hash"))
    for selector in ("#memorization", "#chosen", "#pairs"):
        assert second.text(selector) == first.text(selector)
    for selector in ("#memorization-class", "#memorization-low", "#memorization-high", "#example-index", "#pair-class"):
        assert second.page.locator(selector).input_value() == page.locator(selector).input_value()
    assert second.page.locator("#pair-same").is_checked()
    assert second.page.evaluate("scrollY") > 500, "and to the example"
    page.evaluate("location.hash = ''")
    page.wait_for_function("!document.getElementById('pair-same').checked")


def test_an_address_that_means_nothing_shows_the_page_as_it_is(open_page: Open, image_page: Path) -> None:
    opened = open_page(
        image_page, "#class=__proto__&low=abc&sort=constructor&page=-1&example=<img src=x onerror=alert(6)>"
    )
    for fragment in (
        "",
        "#view=data&class=99",
        "#%E0%A4%A",
        "#low=9&high=-9&min=NaN&page=999999999",
        "#class=1e999&low=1e999",
    ):
        if fragment:
            opened.page.evaluate(
                "(to) => new Promise((done) => { addEventListener('hashchange', done, {once: true}); location.hash = to; })",
                fragment,
            )
        assert opened.page.locator("#histogram button").count() >= 20
        assert opened.page.locator("#pair-rows tr").count() > 0


CONTRAST = """() => {
  const parsed = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
      if (colour[3] !== 0) throw new Error("half transparent");
    }
    throw new Error("no ground");
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("script, style, option")) continue;
    const [one, other] = [light(parsed(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([ratio, walk.currentNode.textContent.slice(0, 30), node.className]);
  }
  return found;
}"""


def test_every_text_has_the_contrast_of_wcag_aa_in_both_modes(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    opened.page.locator("summary").first.click()
    grounds = []
    schemes: list[Any] = ["light", "dark"]
    for scheme in schemes:
        opened.page.emulate_media(color_scheme=scheme)
        found = opened.page.evaluate(CONTRAST)
        assert len(found) > 200
        assert min(found)[0] >= 4.5, (scheme, min(found))
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(map(int, re.findall(r"\d+", ground))))
    assert grounds[0] > 700
    assert grounds[1] < 200


OVERFLOWING = """() => [...document.querySelectorAll("#pair-rows tr")].slice(0, 3).flatMap((row) =>
    [...row.querySelectorAll("td")].filter((cell) => cell.scrollHeight > cell.getBoundingClientRect().height + 1)).length"""


def test_nothing_is_wider_than_the_window_or_runs_into_what_is_below(
    open_page: Open, image_page: Path, vector_page: Path
) -> None:
    for path in (image_page, vector_page):
        opened = open_page(path)
        for width in (320, 375, 768, 1200):
            opened.page.set_viewport_size({"width": width, "height": 900})
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.page.evaluate(OVERFLOWING) == 0


def test_whatever_can_be_used_or_seen_has_a_name(open_page: Open, image_page: Path, vector_page: Path) -> None:
    for path in (image_page, vector_page):
        opened = open_page(path)
        session = opened.page.context.new_cdp_session(opened.page)
        tree = session.send("Accessibility.getFullAXTree")["nodes"]
        roles: dict[str, int] = {}
        for node in tree:
            role = node.get("role", {}).get("value")
            if node.get("ignored") or role not in (
                "button",
                "link",
                "image",
                "combobox",
                "spinbutton",
                "checkbox",
                "columnheader",
                "table",
            ):
                continue
            roles[role] = roles.get(role, 0) + 1
            assert node.get("name", {}).get("value", "").strip(), node
        assert roles["image"] > 40
        assert {"table", "columnheader", "checkbox", "combobox", "spinbutton"} <= set(roles)


def test_inputs_that_are_no_images_are_drawn_and_listed(open_page: Open, vector_page: Path) -> None:
    opened = open_page(vector_page)
    dataset = load_dataset(TrialStore.open(vector_page.parent / "trials.zarr").experiment.dataset)
    index = int(opened.text("#chosen h3").split()[-1])
    opened.page.locator("#chosen summary").click()
    assert opened.text("#chosen summary") == "5 values"
    values = [float(text.replace("−", "-")) for text in opened.texts("#chosen .values li")]
    np.testing.assert_allclose(values, dataset.x_train[index], rtol=6e-4)
    bars = opened.page.locator("#chosen .large rect").evaluate_all(
        "rects => rects.map((r) => [+r.getAttribute('y'), +r.getAttribute('height')])"
    )
    axis = opened.page.locator("#chosen .large .axis").evaluate("line => +line.getAttribute('y1')")
    for (top, height), value in zip(bars, values, strict=True):
        assert (abs(top - axis) < 0.01) == (value <= 0), "bars stand on the axis or hang from it"
        assert height > 0
    assert opened.page.locator("canvas").count() == 0


def test_the_page_holds_what_its_data_say(open_page: Open, image_page: Path) -> None:
    opened = open_page(image_page)
    held = page_data(image_page.read_text(encoding="utf-8"))
    rows = len(held["pairs"]["train"])
    assert opened.text("#pair-status") == f"{rows} of the {rows} pairs on this page."
    assert opened.text("h1").splitlines() == ["run", "What was memorized, and what depends on it"]
    facts = dict(zip(opened.texts("#overview dt"), opened.texts("#overview dd"), strict=True))
    assert facts["Trials"] == "80, each trained on 63 examples (70%)"
    assert facts["Data set"] == "arrays: 90 training and 40 test examples, 3 classes"
    assert {"Learner", "Test accuracy", "Memorized", "Influential pairs", "Largest standard error"} <= set(facts)
