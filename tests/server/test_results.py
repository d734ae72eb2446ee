"""What a result's page fetches: maps of the asked class, the label map of a measured scan."""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import tornado.web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from diagnosis.maps.explain import ExplainError
from reports.wording import translations
from server import results
from server.access.callers import OPEN, Proxy
from server.state import Pool
from tests.asking import ANALYSIS, ask, form, post
from tests.browser import drawn_after, pixels, result_of, send, visiting
from tests.support import Server, running


@pytest.mark.parametrize(
    ("label", "query", "status", "expected"),
    [
        ("MCI", "", 200, ("grad-cam", "MCI")),
        (None, "", 200, ("grad-cam", "AD")),  # not judged: the study's first class
        ("MCI", "?method=occlusion&code=CN", 200, ("occlusion", "CN")),
        ("MCI", "?method=divination", 422, "no map 'divination' of 'MCI'"),
        ("MCI", "?code=XX", 422, "no map 'grad-cam' of 'XX'"),
    ],
)
def test_a_map_is_of_the_answer_or_of_what_is_asked_for(diagnosis, monkeypatch, label, query, status, expected):
    asked = []
    explain = lambda *given, **_: asked.append(given[1:])  # noqa: E731
    code, body = map_of(diagnosis, monkeypatch, label, query, explain)
    if status == 200:
        assert (code, body, asked) == (200, b"a map", [expected])
    else:
        assert code == status and json.loads(body)["error"]["message"] == expected and not asked


def test_a_map_of_what_the_network_never_saw_is_refused_in_words(diagnosis, monkeypatch):
    def explain(*_, **__):
        raise ExplainError("nothing-outlined", "head.nii.gz: no brain could be outlined")

    code, body = map_of(diagnosis, monkeypatch, None, "", explain)
    assert code == 422
    assert json.loads(body)["error"] == {
        "code": "nothing-outlined",
        "message": "head.nii.gz: no brain could be outlined",
    }
    for words in translations().values():
        assert words["error.nothing-outlined"] and words["remedy.nothing-outlined"]


def map_of(diagnosis, monkeypatch, label, query, explain) -> tuple[int, bytes]:
    """What a server answers that is asked for a map."""
    explaining = SimpleNamespace(study=diagnosis.weights.study, weights=diagnosis.weights, explain=explain)
    state = SimpleNamespace(
        stopping=False,
        waiting=set(),
        progress={},
        pool=Pool(1, 1),
        results={
            "r": SimpleNamespace(
                refused=False, weights="w", record={"label": label}, caller=OPEN, scan="ab", series=None
            )
        },
        diagnosers={"w": explaining},
        diagnosis=lambda result: diagnosis,
        audit=None,
    )
    monkeypatch.setitem(results.payloads.MAPS, "", lambda *_: b"a map")
    routes = [route for route in results.ROUTES if route[1] is results.HeatMap]
    sign_in = SimpleNamespace(needed=False)

    async def answer() -> tuple[int, bytes]:
        application = tornado.web.Application(
            routes, state=state, hosts=("127.0.0.1",), sign_in=sign_in, proxy=Proxy()
        )
        served, (socket,) = HTTPServer(application), bind_sockets(0, "127.0.0.1")
        served.add_socket(socket)
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/results/r/map{query}"
        got = await AsyncHTTPClient().fetch(address, raise_error=False, decompress_response=False)
        served.stop()
        await served.close_all_connections()
        return got.code, got.body

    with ThreadPoolExecutor(1) as aside:  # a browser of other tests may keep a loop running in this thread
        told = aside.submit(lambda: asyncio.run(answer())).result()
    state.pool.close()
    return told


@pytest.fixture(scope="module")
def measuring(tmp_path_factory, measuring_folder: Path) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("measuring"), "--weights", measuring_folder, "--workers", "1") as started:
        yield started


def test_the_api_measures_and_gives_the_label_map_where_it_is_asked_for(measuring, head_file):
    head = ("head.nii.gz", head_file.read_bytes())
    _, _, (record,) = post(measuring, head)
    assert record["measures"]["hippocampus_left"]["unit"] == "ml" and record["seconds"]["measure"] > 0
    body, kind = form(head)
    status, headers, body = ask(measuring, "POST", ANALYSIS, body, Content_Type=kind, Accept="application/gzip")
    assert (status, headers["content-type"]) == (200, "application/gzip")
    labels, scan = nibabel.Nifti1Image.from_bytes(gzip.decompress(body)), nibabel.load(head_file)
    assert labels.affine == pytest.approx(scan.affine) and labels.get_data_dtype() == np.uint8
    assert 17 in np.unique(np.asarray(labels.dataobj))


def test_without_a_segmenter_the_api_says_that_there_is_no_label_map(server, head_file):
    body, kind = form(("head.nii.gz", head_file.read_bytes()))
    status, _, answer = ask(server, "POST", ANALYSIS, body, Content_Type=kind, Accept="application/gzip")
    assert status == 422 and json.loads(answer)["error"]["code"] == "no-labels"
    assert post(server, ("head.nii.gz", head_file.read_bytes()))[2][0]["measures"] is None


def test_a_result_s_page_offers_its_label_map(measuring, browser, head_file):
    with visiting(browser, measuring) as visit:
        page = visit()
        send(page, head_file)
        result_of(page)
        address = page.get_attribute("a[href$='labels.nii.gz']", "href")
        status, headers, body = ask(measuring, "GET", address)
    assert status == 200 and headers["content-disposition"].endswith('"scanwise_labels.nii.gz"')
    assert 17 in np.unique(np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(body)).dataobj))


OWN = {"hippocampus": (255, 208, 0)}  # the colour of its outline


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of about this colour."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(-1) < 40)


def test_outlines_lie_on_their_structure_and_follow_their_choice(measuring, browser, head_file):
    """The mark in the left frontal lobe is what this segmenter takes for a hippocampus."""
    with visiting(browser, measuring) as visit:
        page = visit()
        send(page, head_file)
        result_of(page)
        drawn_after(page, lambda: page.uncheck("#cross"))
        assert page.get_attribute("#viewer", "data-outlines") is None  # nothing is fetched unasked
        page.select_option("#outlines", "hippocampus")
        page.wait_for_selector("#viewer[data-outlines=ready]")
        drawn_after(page, lambda: page.click("#outlines-go"))
        assert page.inner_text("#outlines-here") == "At the cross-hairs: Hippocampus, left"
        outlined = pixels(page, "axial")
        line = near(outlined, OWN["hippocampus"])
        drawn_after(page, lambda: page.select_option("#outlines", "off"))
        plain = pixels(page, "axial")
        assert len(line) > 40 and len(near(plain, OWN["hippocampus"])) == 0
        mark = np.argwhere(plain[..., 0] > 225)  # the brightest patch: the outline runs around it
        assert line.mean(0) == pytest.approx(mark.mean(0), abs=3)
        assert line.min(0) == pytest.approx(mark.min(0), abs=6) and line.max(0) == pytest.approx(
            mark.max(0), abs=6
        )
        assert (
            mark.mean(0)[1] > plain.shape[1] / 2 > mark.mean(0)[0]
        )  # the patient's left is right, the front is up
        drawn_after(page, lambda: page.select_option("#outlines", "all"))
        assert page.locator("#outlines-key span").count() == 10
        assert len(near(pixels(page, "axial"), OWN["hippocampus"])) > 40
        drawn_after(page, lambda: page.select_option("#display", "neurological"))
        mirrored = near(pixels(page, "axial"), OWN["hippocampus"])
        assert mirrored[:, 1].mean() == pytest.approx(plain.shape[1] - 1 - line[:, 1].mean(), abs=3)


def test_without_measures_there_are_no_outlines(server, visit, head_file):
    page = visit()
    send(page, head_file)
    result_of(page)
    assert page.locator("#outlines").count() == 0
    key = page.get_attribute("#viewer", "data-key")
    status, _, body = ask(server, "GET", f"/results/{key}/outlines")
    assert status == 404 and json.loads(body)["error"]["code"] == "no-labels"
    assert page.locator("#measures").count() == 0 and ask(server, "GET", f"/results/{key}/cuts.png")[0] == 404


def test_an_age_in_the_form_gives_centiles_and_nonsense_is_refused(measuring, head_file):
    head = ("head.nii.gz", head_file.read_bytes())
    body, kind = form(head, age="70", sex="F")
    _, _, answer = ask(measuring, "POST", ANALYSIS, body, Content_Type=kind)
    assert json.loads(answer)[0]["measures"]["ventricles"]["centile"] is not None
    for files, fields, code in (
        ([head], {"age": "-3"}, "no-such-person"),
        ([head, head], {"age": "70"}, "one-person"),
    ):
        body, kind = form(*files, **fields)
        status, _, answer = ask(measuring, "POST", ANALYSIS, body, Content_Type=kind)
        assert status == 422 and json.loads(answer)["error"]["code"] == code


def test_measures_are_folded_and_an_age_gives_them_centiles_and_curves(measuring, browser, head_file):
    with visiting(browser, measuring) as visit:
        page = visit(390, 800)
        send(page, head_file)
        result_of(page)
        table = page.locator(".measure-table")
        assert not table.is_visible()
        assert re.search(r"Ventricles \d+\.\d ml", page.inner_text("#measures summary"))
        page.click("#measures summary")
        assert table.is_visible() and page.locator(".centile-bar").count() == 0
        assert "tell the age to see centiles" in page.inner_text("#measures")
        page.fill("#person-age", "200")
        page.click("[data-do=person]")  # the browser itself says what is wrong
        assert page.evaluate("document.querySelector('#person-age').validity.rangeOverflow")
        page.fill("#person-age", "70")
        page.select_option("#person-sex", "F")
        page.click("[data-do=person]")
        page.wait_for_selector(".curve-grid svg")
        result_of(page)
        assert table.is_visible() and page.input_value("#person-age") == "70"
        assert (
            "at 70 years (women)" in page.inner_text("#measures") and page.locator(".curve-grid svg").count() == 4
        )
        assert page.locator(".centile-bar").count() == page.locator(".centile-bar i").count() == 4
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(
            "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('.table-scroll'))"
        )
        page.locator(".cuts img").scroll_into_view_if_needed()
        page.wait_for_function("() => document.querySelector('.cuts img').naturalWidth === 1000")
        page.click("[data-do=uncertainty]")  # keeps what was told
        page.wait_for_selector(".bars .range")
        assert page.input_value("#person-age") == "70" and page.locator(".curve-grid svg").count() == 4
        page.click(".languages button[lang=zh]")
        page.wait_for_selector("html[lang=zh-CN]")
        assert "70 岁" in page.inner_text("#measures")
