"""The page's figures: example → result, a 40 MB upload, /healthz under load, memory while 100 MB arrive.

    python -m benchmarks.bench_page [--weights DIR] [--json]

Everything runs against the server as its own process, over real HTTP, in real Chromium where the page is meant.
The example is the one of `demodata/`, or a phantom where there is none; without weights untrained ones are used.
"""

import argparse
import concurrent.futures
import json
import socket
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

import nibabel
import numpy as np

import app
import model
from tests.asking import post
from tests.browser import CHROMIUM, FLAGS
from tests.support import Server, phantom, running, save_nifti, untrained

ROOT = Path(__file__).resolve().parent.parent

TIMES = 5


def example_to_result(server: Server, browser) -> tuple[list[float], list[float], list[float]]:
    """Seconds from the press to the result's words, to the drawn viewer, to its map; the first, cold, left out."""
    words, viewer, heat = [], [], []
    seen = (
        (words, "html[data-view=result]"),
        (viewer, "#viewer[data-ready=yes][data-drawn]"),
        (heat, "#viewer[data-map]"),
    )
    for _ in range(TIMES + 1):
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#example")
        start = time.perf_counter()
        page.click("#example")
        for seconds, selector in seen:  # looked for in every frame; `wait_for_selector` looks twice a second
            page.wait_for_function("selector => document.querySelector(selector)", arg=selector)
            seconds.append(time.perf_counter() - start)
        page.close()
    return words[1:], viewer[1:], heat[1:]


def upload(server: Server, browser, folder: Path) -> list[float]:
    """Seconds that the browser counts for the sending of a 40 MB file."""
    voxels = np.random.default_rng(0).integers(0, 1000, (256, 256, 320), dtype=np.int16)
    file = folder / "forty.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    seconds = []
    for _ in range(TIMES):
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("html[data-view=start]")
        page.set_input_files("#files", file)
        page.wait_for_selector("html[data-view=work], html[data-view=result], html[data-view=refusal]")
        spent = page.evaluate(
            "performance.getEntriesByType('resource').filter((entry) => "
            "entry.name.includes('/uploads/')).map((entry) => entry.duration)"
        )
        seconds.append(spent[0] / 1000)
        page.close()
    return seconds


def health_under_load(server: Server, scan: bytes) -> list[float]:
    """Seconds of each /healthz asked while four scans are worked on."""
    seconds = []
    with concurrent.futures.ThreadPoolExecutor(4) as people:
        jobs = [people.submit(post, server, ("scan.nii.gz", scan)) for _ in range(4)]
        while not all(job.done() for job in jobs):
            start = time.perf_counter()
            urllib.request.urlopen(f"{server.url}/healthz").read()
            seconds.append(time.perf_counter() - start)
            time.sleep(0.02)
    return seconds


def receiving(server: Server, megabytes: int = 100) -> float:
    """MB that the server's memory grows by, at most, while it receives a file through the API."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.nii.gz"\r\n\r\n'
    end, piece = b"\r\n--x--\r\n", bytes(1 << 20)
    before = most = server.memory
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            f"POST /healthcare/mri/analysis HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Length: {len(head) + (megabytes << 20) + len(end)}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
            + head
        )
        for _ in range(megabytes):
            line.sendall(piece)
            most = max(most, server.memory)
        line.sendall(end)
        line.recv(100)
    return (most - before) / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print one object with the figures")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = options.weights if model.list_weights(options.weights) else untrained(folder / "weights")
        example = app.find_example(ROOT / "demodata") or save_nifti(folder / "head.nii.gz", *phantom(1.0))
        start = time.perf_counter()
        with running(folder / "server", "--weights", weights, "--example", example) as server:
            ready = time.perf_counter() - start
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                words, viewer, heat = example_to_result(server, browser)
                sent = upload(server, browser, folder)
                browser.close()
            health = health_under_load(server, example.read_bytes())
            grown = receiving(server)
    figures = {
        "ready_s": ready,
        "example_to_result_s": statistics.median(words),
        "example_to_viewer_s": statistics.median(viewer),
        "example_to_map_s": statistics.median(heat),
        "upload_40mb_s": statistics.median(sent),
        "healthz_median_ms": 1000 * statistics.median(health),
        "healthz_worst_ms": 1000 * max(health),
        "receiving_100mb_adds_mb": grown,
    }
    if options.json:
        print(json.dumps({key: round(value, 3) for key, value in figures.items()}))
        return
    rows = [
        ("start to ready", f"{figures['ready_s']:.2f} s", "≤ 4 s"),
        ("example pressed → result", f"{figures['example_to_result_s']:.2f} s", "≤ 3 s"),
        ("example pressed → viewer drawn", f"{figures['example_to_viewer_s']:.2f} s", ""),
        ("example pressed → heat map", f"{figures['example_to_map_s']:.2f} s", ""),
        ("40 MB sent from the page", f"{figures['upload_40mb_s']:.2f} s", "≤ 1 s"),
        ("/healthz while 4 scans are worked on, median", f"{figures['healthz_median_ms']:.1f} ms", ""),
        ("/healthz while 4 scans are worked on, worst", f"{figures['healthz_worst_ms']:.1f} ms", "< 100 ms"),
        ("memory added while 100 MB arrive", f"{figures['receiving_100mb_adds_mb']:.1f} MB", "< 20 MB"),
    ]
    for what, value, goal in rows:
        print(f"{what:<46} {value:>10}   {goal}")


if __name__ == "__main__":
    main()
