"""Makes the README's pictures of the page: a result on a desktop, and on a phone in the dark.

    python -m benchmarks.screenshots [--weights DIR] [--scan FILE] [--out DIR]

The pictures show the example scan unless another is named; none of a patient belongs into the repository.
"""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

import app
import model
from tests.browser import CHROMIUM, FLAGS
from tests.support import phantom, running, save_nifti, untrained

ROOT = Path(__file__).resolve().parent.parent

LIMIT = 300_000  # bytes of a picture
SHOTS = {  # name → the browser's window, whether the whole page is wanted
    "page": ({"viewport": {"width": 1240, "height": 1180}, "locale": "en-GB"}, False),
    "phone": (
        {
            "viewport": {"width": 390, "height": 844},
            "locale": "en-GB",
            "color_scheme": "dark",
            "device_scale_factor": 1.5,
        },
        False,
    ),
    "chinese": ({"viewport": {"width": 1240, "height": 1180}, "locale": "zh-CN"}, False),
}


def save(picture: bytes, path: Path) -> None:
    """A PNG of few colours, made smaller until it is below the limit."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    while True:
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )
        if path.stat().st_size <= LIMIT:
            break
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    print(f"{path}: {image.width}×{image.height}, {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", metavar="DIR")
    parser.add_argument("--scan", type=Path, metavar="FILE", help="another scan than the example")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = options.weights if model.list_weights(options.weights) else untrained(folder / "weights")
        named = ["--example", options.scan] if options.scan else []
        if not named and app.find_example(ROOT / "demodata") is None:
            named = ["--example", save_nifti(folder / "head.nii.gz", *phantom(1.0))]
        with running(folder / "server", "--weights", weights, *named) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for shot, (window, whole) in SHOTS.items():
                page = browser.new_context(**window).new_page()
                page.set_default_timeout(120_000)
                page.goto(server.url)
                page.click("#example")
                page.wait_for_selector("#viewer[data-map]")
                drawn = page.get_attribute("#viewer", "data-drawn")
                page.click("#map-peak")
                page.wait_for_selector(f"#viewer:not([data-drawn='{drawn}'])")
                page.evaluate("scrollTo(0, 0)")
                save(page.screenshot(full_page=whole), options.out / f"{shot}.png")
                page.context.close()
            browser.close()


if __name__ == "__main__":
    main()
