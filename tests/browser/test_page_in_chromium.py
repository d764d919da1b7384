"""
The page in a real browser, with the classifier that comes with the repository: `python -m pytest -m browser`.

Chromium is Debian's (`apt-get install chromium`), driven by Playwright (`pip install "ecg_jepa[browser]"`). Screenshots go to
the folder that ECG_JEPA_SCREENSHOTS names, or to pytest's.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from raw_databases import ecg, write_record

pytestmark = pytest.mark.browser
REPOSITORY = Path(__file__).parents[2]
CHECKPOINT = REPOSITORY / "checkpoints" / "ecg-jepa-xs-100hz-superdiagnostic"
EXAMPLES = REPOSITORY / "examples"
SIZES = {"desktop": {"width": 1400, "height": 1000}, "phone": {"width": 390, "height": 844}}
PATIENCE = 60_000  # ms; the first analysis loads what it needs


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("gradio")
    from ecg_jepa.apps.page import served

    with served(CHECKPOINT, CHECKPOINT.name, EXAMPLES) as page:
        yield page.local_url


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason='pip install "ecg_jepa[browser]"')
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    # What it would fetch of its own accord it need not; as root it has no sandbox.
    words = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=[*words, "--disable-component-update", "--disable-sync"])
        yield opened
        opened.close()


@pytest.fixture(params=SIZES)
def page(request, browser, address):
    """The page, at the size of a desk or a telephone; requests elsewhere are noted."""
    context = browser.new_context(viewport=SIZES[request.param], accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.size_name = request.param
    opened.elsewhere = []
    opened.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else opened.elsewhere.append(r.url))
    opened.goto(address)
    opened.get_by_text("Look at an ECG").wait_for()
    yield opened
    assert not opened.elsewhere
    context.close()


@pytest.fixture
def shoot(page, tmp_path):
    folder = Path(os.environ.get("ECG_JEPA_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str) -> None:
        page.get_by_text("processing |").first.wait_for(state="hidden")
        # Nothing sticks out of the page to the right.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=folder / f"{name}-{page.size_name}.png", full_page=True)

    return save


def upload(page, *paths: Path) -> None:
    page.locator("input[type=file]").first.set_input_files([str(path) for path in paths])


def test_an_upload(page, shoot, tmp_path):
    shoot("start")
    upload(page, EXAMPLES / "00286_lr.hea", EXAMPLES / "00286_lr.dat")
    page.locator("table.ecg-labels").wait_for()
    first = page.locator("table.ecg-labels tbody tr").first
    assert first.locator("td").first.inner_text() == "CD conduction disturbance"  # which a left bundle branch block is
    assert "100 Hz" in page.locator(".ecg-note").inner_text()
    image = page.locator(".ecg-scroll img")
    assert image.evaluate("image => image.complete && image.naturalWidth > 1000")
    assert page.locator("text=Not a medical device").count() >= 2
    with page.expect_download() as downloading:
        page.get_by_text("Download the embedding").click()
    downloading.value.save_as(tmp_path / "vector.npy")
    assert np.load(tmp_path / "vector.npy").shape == (192,)
    shoot("upload")


def test_an_example(page, shoot):
    page.get_by_label("or an example").click()
    page.get_by_role("option", name="00703_lr").click()
    page.locator("table.ecg-labels").wait_for()
    assert "00703_lr" in page.locator(".ecg-note").inner_text()
    shoot("example")


def test_what_a_file_does_not_say_is_filled_in(page, shoot, tmp_path):
    import wfdb

    record = wfdb.rdrecord(str(EXAMPLES / "00003_lr"))
    np.savetxt(tmp_path / "bare.csv", record.p_signal, delimiter=",", header=",".join(record.sig_name), comments="")
    upload(page, tmp_path / "bare.csv")
    page.get_by_text("fill in what is missing, and analyse").wait_for()
    assert page.locator("table.ecg-labels").count() == 0
    shoot("missing")
    page.get_by_label("sampling rate in Hz").fill("100")
    page.get_by_label("unit", exact=True).click()
    page.get_by_role("option", name="mV", exact=True).click()
    page.get_by_role("button", name="Analyse").click()
    page.locator("table.ecg-labels").wait_for()
    assert page.locator("table.ecg-labels tbody tr").first.locator("td").first.inner_text().split()[0] in ("NORM", "SR")
    shoot("filled-in")


def bad_files(folder: Path) -> dict[str, list[Path]]:
    """Name of a refusal -> files."""
    write_record(folder / "microvolts", ecg(5000), gain="1.0(0)/mV")
    write_record(folder / "short", ecg(500))
    write_record(folder / "few", ecg(5000, num_leads=2), leads=["I", "V1"])
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7 no ECG")
    (folder / "<img src=x onerror=alert(1)>.csv").write_text("a,b\n1,2\n")
    together = {name: [folder / f"{name}.hea", folder / f"{name}.dat"] for name in ("microvolts", "short", "few")}
    return {
        **together,
        "no-header": [folder / "few.dat"],
        "no-ecg": [folder / "letter.pdf"],
        "odd-name": [folder / "<img src=x onerror=alert(1)>.csv"],
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("microvolts", "looks like uV"),
        ("short", "too short"),
        ("few", "lead"),
        ("no-header", "Upload them together"),
        ("no-ecg", "letter.pdf"),
        ("odd-name", "onerror=alert(1)"),
    ],
)
def test_a_bad_file_is_refused_in_words(page, shoot, tmp_path, name, message):
    page.on("dialog", lambda _: pytest.fail("text of a file was run"))
    upload(page, *bad_files(tmp_path)[name])
    page.locator(".ecg-refusal").wait_for()
    assert message in page.locator(".ecg-refusal").inner_text()
    assert page.locator("table.ecg-labels").count() == 0
    shoot(f"refused-{name}")
