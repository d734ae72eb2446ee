"""The page in a real browser: what a visitor sees, clicks and hears, in two languages and on a phone."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest

from studies import STUDIES
from tests import heads
from tests.browser import SLOW, Open, drawn_after, pixels, result_of, send, visiting
from tests.support import Server, phantom, running, save_nifti, until


def dicom_zip(path: Path, modality: bytes = b"MR") -> Path:
    """The phantom as a zipped series of DICOM slices, whose header holds a patient's name."""
    slices = heads.dicom_slices(*phantom(4.0))
    path.write_bytes(
        heads.zipped(
            {
                f"{number}.dcm": data.replace(b"CS\x02\x00MR", b"CS\x02\x00" + modality)
                for number, data in enumerate(slices)
            }
        )
    )
    return path


def test_the_example_leads_to_its_result(visit: Open, server: Server):
    page = visit(maps=True)
    assert "Not a medical device" in page.inner_text(".notice")
    page.click("#example")
    result_of(page)
    label = page.inner_text("#answer .code")
    shown = page.locator(".bars > div")
    assert shown.locator(".code").all_inner_texts() == ["CN", "EMCI", "MCI", "LMCI", "AD"]
    percents = [float(text.strip("<> %")) for text in shown.locator("b").all_inner_texts()]
    assert sum(percents) == pytest.approx(100, abs=0.3)
    assert ["CN", "EMCI", "MCI", "LMCI", "AD"][int(np.argmax(percents))] == label
    assert page.locator(".pane canvas").count() == 3
    assert "not calibrated" in page.inner_text(".chart h2")
    assert "Untrained" in page.inner_text(".details")
    page.wait_for_selector("#viewer[data-map], #map-said.bad")
    assert page.get_attribute("#viewer", "data-map") == f"method=grad-cam&code={label}"
    with page.expect_download() as download:
        page.click("text=Data (JSON)")
    assert json.loads(Path(download.value.path()).read_text())["label"] == label
    page.click("text=New scan")
    page.wait_for_selector("html[data-view=start]")


def test_studies_without_weights_are_listed_greyed_with_the_command_that_brings_them(visit: Open):
    page = visit()
    group = page.locator("select[data-do=choose] optgroup")
    assert "make demos" in group.get_attribute("label")
    titles = [study.title for key, study in STUDIES.items() if key != "alzheimers"]
    assert group.locator("option[disabled]").all_inner_texts() == titles
    assert page.locator("select[data-do=choose] option:not([disabled])").count() == 1


def test_a_button_adds_intervals_to_the_bars(visit: Open):
    page = visit()
    page.click("#example")
    result_of(page)
    bars = page.locator(".bars b").all_inner_texts()
    assert page.locator(".bars .range").count() == 0
    page.click("[data-do=uncertainty]")
    page.wait_for_selector(".bars .range")
    result_of(page)
    assert page.locator(".bars b").all_inner_texts() == bars
    assert page.locator(".bars .range").count() == len(bars) and page.locator("[data-do=uncertainty]").count() == 0
    spans = page.locator(".bars small").all_inner_texts()
    assert all(re.fullmatch(r"(< )?\d+\.\d( – |–)(> )?\d+\.\d %", text) for text in spans)
    assert "20 passes" in page.inner_text(".chart")
    with page.expect_download() as download:
        page.click("text=Data (JSON)")
    assert len(json.loads(Path(download.value.path()).read_text())["intervals"]) == len(bars)


def test_the_marked_lobe_stands_on_its_own_side(visit: Open, head_file: Path):
    """The mark in the LEFT FRONTAL lobe: at the right and in the upper half of the radiological axial view."""
    page = visit()
    send(page, head_file)
    result_of(page)
    drawn_after(page, lambda: page.uncheck("#cross"))

    brightest = page.evaluate("""() => {
        const {shape, data} = scanwiseViewer.current.volume;
        const at = [0, 0, 0];
        let count = 0;
        data.forEach((value, i) => {
            if (value < 235) return;
            [Math.floor(i / (shape[1] * shape[2])), Math.floor(i / shape[2]) % shape[1], i % shape[2]]
                .forEach((v, axis) => { at[axis] += v; });
            count += 1;
        });
        return at.map((sum) => Math.round(sum / count));
    }""")

    def turn_to_mark(plane: str, axis: int) -> None:
        drawn_after(page, lambda: page.fill(f".pane.{plane} input", str(brightest[axis])))

    def mark(plane: str) -> tuple[float, float]:
        """Where the brightest patch lies, −1 to 1, right and down of the head's own middle."""
        picture = pixels(page, plane)[..., 0].astype(float)
        rows, columns = np.nonzero(picture > 225)
        head_rows, head_columns = np.nonzero(picture > 30)
        assert len(rows) > 20
        return (
            2 * (columns.mean() - head_columns.min()) / np.ptp(head_columns) - 1,
            2 * (rows.mean() - head_rows.min()) / np.ptp(head_rows) - 1,
        )

    turn_to_mark("axial", 2)
    across, down = mark("axial")
    assert across > 0.2  # the patient's left is on the right
    assert down < -0.2  # the front is up
    letters = page.locator(".pane.axial .stage b")
    assert letters.all_inner_texts() == ["R", "L", "A", "P"]
    turn_to_mark("coronal", 1)
    across, down = mark("coronal")
    assert across > 0.2
    assert down < 0
    turn_to_mark("sagittal", 0)
    across, down = mark("sagittal")
    assert across < -0.2  # the face looks left
    assert down < 0
    assert page.locator(".pane.sagittal .stage b").all_inner_texts() == ["A", "P", "S", "I"]

    drawn_after(page, lambda: page.select_option("#display", "neurological"))
    across, down = mark("axial")
    assert across < -0.2
    assert down < -0.2
    assert letters.all_inner_texts() == ["L", "R", "A", "P"]


def test_the_viewer_by_keyboard_wheel_and_pointer(visit: Open):
    page = visit()
    page.click("#example")
    result_of(page)

    def slice_of(plane: str) -> int:
        return int(page.inner_text(f".pane.{plane} output").split(" / ")[0])

    axial, coronal = slice_of("axial"), slice_of("coronal")
    page.focus(".pane.axial canvas")
    drawn_after(page, lambda: page.keyboard.press("PageUp"))
    assert slice_of("axial") == axial + 1
    drawn_after(page, lambda: page.keyboard.press("ArrowUp"))  # towards the front: the coronal plane follows
    assert slice_of("coronal") == coronal + 1
    page.hover(".pane.axial canvas")
    drawn_after(page, lambda: page.mouse.wheel(0, 100))
    assert slice_of("axial") == axial
    box = page.locator(".pane.axial canvas").bounding_box()
    drawn_after(page, lambda: page.mouse.click(box["x"] + 2, box["y"] + 2))
    assert slice_of("sagittal") > 160  # of 166: far right of the patient
    drawn_after(page, lambda: page.click("#reset"))
    assert (slice_of("axial"), slice_of("coronal")) == (axial, coronal)


def test_the_heat_map_follows_its_controls(visit: Open):
    page = visit(maps=True)
    page.click("#example")
    result_of(page)
    page.wait_for_selector("#viewer[data-map], #map-said.bad")
    drawn_after(page, lambda: page.click("#map-peak"))
    coloured = pixels(page, "axial").astype(int)
    drawn_after(page, lambda: page.uncheck("#map-on"))
    plain = pixels(page, "axial").astype(int)
    assert np.abs(coloured - plain).max() > 30
    drawn_after(page, lambda: page.check("#map-on"))
    drawn_after(page, lambda: page.fill("#map-opacity", "0"))
    assert np.abs(pixels(page, "axial").astype(int) - plain).max() <= 1
    other = next(code for code in ("CN", "AD") if code != page.inner_text("#answer .code"))
    page.select_option("#map-class", other)
    page.wait_for_selector(f"#viewer[data-map='method=grad-cam&code={other}']")
    assert page.get_attribute("a[data-map='nii.gz']", "href").endswith(f"code={other}")


def test_a_zipped_dicom_series(visit: Open, server: Server, tmp_path: Path):
    page = visit()
    send(page, dicom_zip(tmp_path / "series.zip"))
    result_of(page)
    assert "DICOM" in page.inner_text(".details")
    assert "Secret" not in page.content()
    assert "SECRET" not in page.content()
    assert "Secret" not in server.log.read_text()


def test_what_cannot_be_judged_is_shown_with_its_reason(visit: Open, tmp_path: Path):
    page = visit()
    send(page, dicom_zip(tmp_path / "ct.zip", b"CT"))
    result_of(page)
    assert page.inner_text(".answer .chip") == "Cannot be judged"
    assert "CT" in page.inner_text(".reasons")
    assert page.locator(".bars").count() == 0
    assert page.locator(".pane canvas").count() == 3
    page.click("text=Judge it anyway")
    page.wait_for_selector(".bars")
    result_of(page)
    assert page.inner_text(".answer .chip") == "Cannot be judged"
    assert "on request" in page.inner_text(".answer")


def test_a_refused_file_and_a_good_one_after_it(visit: Open, head_file: Path, tmp_path: Path):
    page = visit()
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(head_file.read_bytes()[:9000])
    send(page, cut)
    page.wait_for_selector("html[data-view=refusal]")
    assert "cut off" in page.inner_text("main h1")
    assert "cut.nii.gz" in page.inner_text("main")
    page.click("main .primary")
    page.wait_for_selector("html[data-view=start]")
    send(page, head_file)
    result_of(page)


def test_the_page_s_uploads_have_the_limit_too(browser, tmp_path: Path, weights_folder: Path):
    """A file of the limit itself is read, and one of a byte more is not kept."""
    with (
        running(tmp_path, "--weights", weights_folder, "--max-upload", "1") as server,
        visiting(browser, server) as visit,
    ):
        for size, words in ((1 << 20, "No NIfTI inside"), ((1 << 20) + 1, "too large")):
            page = visit()
            send(page, {"name": "a.nii", "mimeType": "application/octet-stream", "buffer": bytes(size)})
            page.wait_for_selector("html[data-view=refusal]")
            assert words in page.inner_text("main")


def test_several_files_make_a_table(visit: Open, head_file: Path, tmp_path: Path):
    page = visit()
    letter = tmp_path / "letter.docx"
    letter.write_bytes(b"PK")
    other = save_nifti(tmp_path / "other.nii.gz", *phantom(4.0, mark=False), "RAS")
    send(page, head_file, letter, other)
    page.wait_for_selector("html[data-view=table]")
    rows = page.locator("tbody tr")
    assert rows.count() == 3
    texts = sorted(rows.all_inner_texts())
    assert [re.split(r"\s", text)[0] for text in texts] == ["head.nii.gz", "letter.docx", "other.nii.gz"]
    assert "cannot be read" in texts[1]
    page.click("tr:has-text('other.nii.gz') button")
    result_of(page)
    assert page.inner_text(".result-top .file") == "other.nii.gz"
    page.click("text=All scans")
    page.wait_for_selector("html[data-view=table]")


def test_two_languages(visit: Open):
    page = visit(locale="zh-CN")
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert "仅供研究使用" in page.inner_text(".notice")
    page.click("#example")
    result_of(page)
    assert "最接近的类别" in page.inner_text(".answer")
    page.click(".languages button[lang=en]")
    page.wait_for_selector("html[lang=en]")
    result_of(page)
    assert "Looks most like" in page.inner_text(".answer")


def test_a_phone_has_no_sideways_scrolling(visit: Open):
    page = visit(360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#example")
    result_of(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Open, scheme: str):
    """Every visible text on the start and result views has a contrast of at least 4.5 to 1."""
    page = visit(color_scheme=scheme)
    look = """() => {
        const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (node) => {
            for (let at = node; at; at = at.parentElement) {
                const colour = parse(getComputedStyle(at).backgroundColor);
                if (colour.length && (colour[3] === undefined || colour[3] > 0.95)) return colour;
            }
            return [255, 255, 255];
        };
        const poor = [];
        for (const node of document.querySelectorAll("body *")) {
            const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
            if (!own || !node.offsetParent || node.tagName === "OPTION" || node.closest(".unseen")) continue;
            const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className}: ${node.textContent.trim()}`);
        }
        return poor;
    }"""
    assert page.evaluate(look) == []
    page.click("#example")
    result_of(page)
    assert page.evaluate(look) == []


def test_every_control_has_a_name(visit: Open):
    page = visit()
    page.click("#example")
    result_of(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, a, canvas[tabindex]")]
        .filter((node) => node.offsetParent && !node.getAttribute("aria-label") && !node.textContent.trim()
            && !(node.labels && node.labels.length)).map((node) => node.outerHTML)""")
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_a_hostile_file_name_stays_text(visit: Open, head_file: Path):
    page = visit()
    name = "<img src=x onerror=document.title='hurt'>.nii.gz"
    send(page, {"name": name, "mimeType": "application/gzip", "buffer": head_file.read_bytes()[:9000]})
    page.wait_for_selector("html[data-view=refusal]")
    assert page.locator("main img").count() == 0
    assert page.title() == "Scanwise"
    page.click("main .primary")
    page.wait_for_selector("html[data-view=start]")
    send(page, {"name": "<b id=bold>.txt", "mimeType": "text/plain", "buffer": b"x"})
    page.wait_for_selector("html[data-view=refusal]")
    assert page.locator("#bold").count() == 0


def test_two_people_get_their_own_results(visit: Open, head_file: Path, tmp_path: Path):
    first, second = visit(), visit(locale="zh-CN")
    other = save_nifti(tmp_path / "second.nii.gz", *phantom(4.0, mark=False), "RAS")
    send(first, head_file)
    send(second, other)
    result_of(first)
    result_of(second)
    assert first.inner_text(".result-top .file") == "head.nii.gz"
    assert second.inner_text(".result-top .file") == "second.nii.gz"


def test_leaving_mid_run_leaves_no_file_and_no_thread(visit: Open, server: Server, head_file: Path):
    until(lambda: server.metric("scanwise_pages_open") == 0, what="the pages of other tests to close")
    threads = psutil.Process(server.process.pid).num_threads()
    page = visit()
    send(page, head_file)
    page.wait_for_selector("html[data-view=work], html[data-view=result]")
    page.close(run_before_unload=False)
    until(lambda: server.metric("scanwise_pages_open") == 0, what="the page to be given up")
    until(lambda: server.files() == [], what="the upload to go")
    until(lambda: psutil.Process(server.process.pid).num_threads() <= threads, what="its threads to end")


def test_a_lost_server_is_told(visit: Open):
    page = visit()
    page.evaluate("WebIO._state.CurrentSession.close_session()")
    page.wait_for_selector("#lost")
    assert "connection" in page.inner_text("#lost")


def test_signing_in_by_the_form_and_out_again(browser, strict: Server):
    """In a browser, whose forms carry an origin of their own making."""
    context = browser.new_context(locale="en-GB")
    try:
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.goto(strict.url)
        page.fill("#password", "open sesame")
        page.click("text=Enter")
        page.wait_for_selector("html[data-view=start]")
        other = context.new_page()
        other.goto(strict.url)
        other.wait_for_selector("html[data-view=start]")
        page.click("text=Sign out")
        page.wait_for_selector("#password")
        other.wait_for_selector("#lost", timeout=SLOW)
        assert page.request.get(f"{strict.url}/studies").status == 401
    finally:
        context.close()


def folder_of(path: Path, *series: tuple[int, str]) -> Path:
    """A folder of slices of some series, shuffled under names that say nothing, with a text beside them."""
    (path / "DICOM" / "A").mkdir(parents=True)
    (path / "README.txt").write_text("a viewer for your images " * 20)
    (path / "DICOM" / ".hidden").write_text("x" * 300)
    for number, description in series:
        for place, file in enumerate(heads.dicom_slices(*phantom(4.0), number)):
            data = pydicom.dcmread(io.BytesIO(file))
            data.SeriesDescription = description
            (path / "DICOM" / ("A" if place % 2 else ".") / f"IM{number}{place}").write_bytes(heads.to_bytes(data))
    return path


def test_a_folder_is_one_scan_and_another_of_its_series_can_be_judged(visit: Open, tmp_path: Path):
    page = visit()
    page.set_input_files("#folder", folder_of(tmp_path / "Somebody", (3, "t2_tse"), (5, "t1_mprage")))
    result_of(page)
    assert page.inner_text(".result-top .file") == "Somebody.tar"
    assert page.inner_text("#series summary") == "Chosen among 2 series" and not page.is_visible("#series ul")
    page.click("#series summary")
    page.wait_for_selector("#series[data-shown=yes]")
    sizes = page.eval_on_selector_all("#series img", "all => all.map((one) => one.naturalWidth)")
    assert sizes == [64, 64]
    assert page.locator("#series li.chosen b").all_text_contents() == ["5"]
    assert "not T1" in page.inner_text("#series li:not(.chosen)")
    page.click("[data-do=series][data-value='3']")
    page.wait_for_selector("#series li.chosen:first-child", state="attached")
    result_of(page)
    assert "its sequence shows T2, not T1" in page.inner_text(".reasons")


def test_where_no_series_can_be_told_to_be_the_best_one_is_chosen_by_hand(visit: Open, tmp_path: Path):
    page = visit()
    page.set_input_files("#folder", folder_of(tmp_path / "cd", (3, "first"), (5, "second")))
    page.wait_for_selector("html[data-view=refusal]")
    assert page.inner_text("h1") == "There are several series in it"
    page.wait_for_selector("#series[data-shown=yes]")
    page.click("[data-do=series][data-value='5']")
    result_of(page)
    assert page.locator("#series li.chosen b").all_text_contents() == ["5"]


def test_loose_slices_are_one_scan_and_a_dropped_folder_too(visit: Open, tmp_path: Path):
    page = visit()
    folder = folder_of(tmp_path / "cd", (5, "t1_mprage"))
    slices = sorted(file for file in folder.rglob("IM*"))
    send(page, *slices)
    result_of(page)
    assert page.inner_text(".result-top .file") == "DICOM files.tar"
    page.click("text=New scan")
    page.wait_for_selector("html[data-view=start]")
    page.evaluate(
        """async (files) => {
            const entry = ([name, text]) => ({ name, isFile: true, file: (give) => give(
                new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name)) });
            let left = files.map(entry); // a browser gives a hundred at a time
            const folder = { name: "dropped", isDirectory: true, createReader: () => ({
                readEntries: (give) => give(left.splice(0, 20)) }) };
            const event = new Event("drop", { bubbles: true, cancelable: true });
            event.dataTransfer = { files: [], items: [{ webkitGetAsEntry: () => folder }] };
            document.dispatchEvent(event);
        }""",
        [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in slices],
    )
    result_of(page)
    assert page.inner_text(".result-top .file") == "dropped.tar"


def test_a_folder_without_images_is_told_at_once(visit: Open, tmp_path: Path):
    page = visit()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing " * 50)
    page.set_input_files("#folder", tmp_path / "empty")
    page.wait_for_selector("#send-failed:not([hidden])")
    assert "No scan and no DICOM file was found" in page.inner_text("#send-failed")
