import gzip
import hashlib
import os
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from zoo.data import DatasetUnavailableError, find_mnist, load_mnist, mnist
from zoo.data._http import fetch
from zoo.data._splits import border_median
from zoo.data.idx import TEST_FILES, TRAIN_FILES

ZOO_DATA = os.environ.get("ZOO_DATA", "")
HAVE_MNIST = all(Path(ZOO_DATA, "MNIST", "raw", name).is_file() for name in mnist.CHECKSUMS)
with_mnist = pytest.mark.skipif(
    not HAVE_MNIST, reason="needs the real digits: set ZOO_DATA to a folder with the four files in MNIST/raw"
)

IMAGES = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10, dtype=torch.uint8).repeat(4)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No data, no mirror and an empty cache, unless a test sets them up."""
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(url, timeout):
        raise ConnectionError("no network")

    monkeypatch.setattr(mnist, "fetch", refuse)


@pytest.fixture
def files(tmp_path, write_idx, monkeypatch):
    """Names and contents of four small files, whose checksums replace those of MNIST."""
    contents = {}
    for (images, labels), size in ((TRAIN_FILES, 40), (TEST_FILES, 10)):
        contents[images] = write_idx(tmp_path / "source" / images, IMAGES[:size])
        contents[labels] = write_idx(tmp_path / "source" / labels, LABELS[:size])
    monkeypatch.setattr(
        mnist, "CHECKSUMS", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    )
    return contents


@pytest.fixture
def own_copy(files, tmp_path, monkeypatch):
    """The folder with the four files below $ZOO_DATA."""
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "MNIST" / "raw"
    fill(folder, files)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "reinforce-zoo" / "MNIST" / "raw"


@pytest.fixture
def mirror(files, monkeypatch):
    """A network with the four files; returns the list of requested URLs."""
    asked = []

    def fetch(url, timeout):
        asked.append(url)
        return gzip.compress(files[url.rsplit("/", 1)[1].removesuffix(".gz")])

    monkeypatch.setattr(mnist, "fetch", fetch)
    return asked


def fill(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def everything_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestOwnFiles:
    def test_files_in_zoo_data_are_used(self, own_copy):
        assert find_mnist() == own_copy

    @pytest.mark.parametrize("name", mnist.CHECKSUMS)
    def test_wrong_checksum_is_named_with_a_cure(self, own_copy, name):
        content = bytearray((own_copy / name).read_bytes())
        content[-1] ^= 1
        (own_copy / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(own_copy / name))} .*md5.*delete it .*replace it"):
            load_mnist(validation=10)

    def test_zoo_data_without_mnist_raises_a_warning(self, files, cache, monkeypatch, tmp_path, caplog):
        fill(cache, files)
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
        assert find_mnist() == cache
        (record,) = caplog.records
        assert record.name == "zoo.data"
        assert str(tmp_path / "data" / "MNIST" / "raw") in record.getMessage()

    def test_no_warning_without_zoo_data(self, files, cache, caplog):
        fill(cache, files)
        assert find_mnist() == cache
        assert not caplog.records

    def test_cache_is_verified_too(self, files, cache):
        fill(cache, files)
        (cache / TEST_FILES[1]).write_bytes(b"half")
        with pytest.raises(ValueError, match=TEST_FILES[1]):
            find_mnist()


class TestDownload:
    def test_missing_files_are_downloaded_into_the_cache(self, mirror, files, cache, caplog):
        assert find_mnist() == cache
        assert {name: (cache / name).read_bytes() for name in files} == files
        assert "ZOO_DATA" not in caplog.text

    def test_files_are_downloaded_once(self, mirror, cache):
        find_mnist()
        assert len(mirror) == 4
        assert find_mnist() == cache
        assert len(mirror) == 4

    def test_writable_zoo_data_is_preferred_to_the_cache(self, mirror, monkeypatch, tmp_path):
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
        assert find_mnist() == tmp_path / "data" / "MNIST" / "raw"

    def test_cache_is_used_if_zoo_data_is_not_writable(self, mirror, cache, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("a file where a folder is expected")
        monkeypatch.setenv("ZOO_DATA", str(tmp_path / "file"))
        assert find_mnist() == cache

    def test_no_writable_folder_raises(self, mirror, monkeypatch):
        monkeypatch.setattr(mnist.os, "access", lambda path, mode: False)
        with pytest.raises(DatasetUnavailableError, match="are not writable; set ZOO_DATA"):
            find_mnist()

    def test_only_missing_files_are_downloaded(self, mirror, files, cache):
        fill(cache, {name: files[name] for name in TRAIN_FILES})
        find_mnist()
        assert [url.rsplit("/", 1)[1] for url in mirror] == [f"{name}.gz" for name in TEST_FILES]

    def test_damaged_file_beside_missing_ones_raises(self, mirror, cache):
        fill(cache, {TRAIN_FILES[0]: b"half"})
        with pytest.raises(ValueError, match=TRAIN_FILES[0]):
            find_mnist()
        assert not mirror

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda packed: b"<html>Please log in.</html>", id="a web page"),
            pytest.param(lambda packed: packed[:-10], id="cut off"),
            pytest.param(lambda packed: gzip.compress(b"other"), id="another file"),
        ],
    )
    def test_mirror_with_wrong_content_is_skipped(self, mirror, files, cache, monkeypatch, spoil):
        good = mnist.fetch

        def fetch(url, timeout):
            packed = good(url, timeout)
            return spoil(packed) if url.startswith(MNIST.mirrors[0]) else packed

        monkeypatch.setattr(mnist, "fetch", fetch)
        find_mnist()
        assert {name: (cache / name).read_bytes() for name in files} == files

    def test_wrong_content_is_never_saved(self, files, cache, monkeypatch):
        monkeypatch.setattr(mnist, "fetch", lambda url, timeout: gzip.compress(b"other"))
        with pytest.raises(DatasetUnavailableError, match="wrong checksum"):
            find_mnist()
        assert everything_below(cache) == []

    def test_error_without_a_network_lists_every_url(self, files):
        with pytest.raises(DatasetUnavailableError) as error:
            load_mnist()
        for address in MNIST.mirrors:
            assert f"{address}{TRAIN_FILES[0]}.gz (no network)" in str(error.value)
        assert "load_mnist_5k" in str(error.value)

    def test_timeout_covers_all_mirrors_together(self, files, monkeypatch):
        release = threading.Event()

        def hang(*args, **kwargs):
            release.wait()
            raise OSError("released")

        monkeypatch.setattr("urllib.request.urlopen", hang)
        monkeypatch.setattr(mnist, "fetch", fetch)
        monkeypatch.setattr(mnist, "TIMEOUT", 0.4)
        start = time.monotonic()
        with pytest.raises(DatasetUnavailableError, match=r"no response within 0\.2 seconds"):
            find_mnist()
        assert 0.3 < time.monotonic() - start < 5
        release.set()

    def test_timeout_is_ten_seconds(self):
        assert mnist.TIMEOUT == 10

    @pytest.mark.parametrize("moment", ["fetch", "write_bytes", "replace"])
    def test_interrupted_download_leaves_no_partial_file_and_can_be_repeated(
        self, mirror, files, cache, monkeypatch, moment
    ):
        with monkeypatch.context() as patch:
            interrupt(patch, moment, at_call=2)
            with pytest.raises(KeyboardInterrupt):
                find_mnist()
        assert everything_below(cache) == [TRAIN_FILES[0]]
        assert (cache / TRAIN_FILES[0]).read_bytes() == files[TRAIN_FILES[0]]
        assert find_mnist() == cache
        assert everything_below(cache) == sorted(files)

    def test_full_disk_raises(self, mirror, cache, monkeypatch):
        def fail(self, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(DatasetUnavailableError, match=r"cannot be saved: .*No space left"):
            find_mnist()
        assert everything_below(cache) == []


def interrupt(patch, moment, at_call):
    """Raise KeyboardInterrupt in the middle of the given call of a download step."""
    owner = mnist if moment == "fetch" else Path
    original = getattr(owner, moment)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == at_call:
            if moment == "write_bytes":
                original(args[0], args[1][: len(args[1]) // 2])
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    patch.setattr(owner, moment, interrupted)


class TestLoading:
    def test_digits_keep_their_labels(self, own_copy):
        data = load_mnist(validation=0)
        assert torch.equal(data.train.images[:, 0], IMAGES)
        assert data.train.labels.tolist() == LABELS.tolist()
        assert torch.equal(data.load_test().images[:, 0], IMAGES[:10])

    def test_split_depends_on_its_seed_only(self, own_copy):
        first, again, other = (load_mnist(20, seed).validation.images for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_test_images_are_read_by_load_test_only(self, own_copy):
        data = load_mnist(validation=10)
        (own_copy / TEST_FILES[0]).unlink()
        with pytest.raises(FileNotFoundError):
            data.load_test()


@pytest.fixture(scope="module")
def real():
    """The real digits with the default split, and without a validation set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_DATA", ZOO_DATA)
        return load_mnist(), load_mnist(validation=0)


@with_mnist
class TestRealDigits:
    def test_sizes_are_those_of_the_literature(self, real):
        data, whole = real
        assert (len(data.train), len(data.validation), len(data.load_test())) == (55_000, 5_000, 10_000)
        assert (len(whole.train), whole.validation) == (60_000, None)
        assert data.image_shape == (1, 28, 28)

    def test_mean_and_deviation_are_those_of_the_literature(self, real):
        counts = real[1].train.images.flatten().bincount(minlength=256).double()
        levels = torch.linspace(0, 1, 256, dtype=torch.float64)
        mean = (counts @ levels) / counts.sum()
        assert mean.item() == pytest.approx(0.1307, abs=5e-5)
        assert (counts @ (levels - mean) ** 2 / counts.sum()).sqrt().item() == pytest.approx(0.3081, abs=5e-5)

    def test_first_labels_are_those_of_the_literature(self, real):
        assert real[1].train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert real[1].load_test().labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]

    def test_training_and_validation_digits_are_disjoint_and_complete(self, real):
        data, whole = real
        train, validation, everything = (
            {image.tobytes() for image in part.images.numpy()} for part in (data.train, data.validation, whole.train)
        )
        assert train.isdisjoint(validation)
        assert train | validation == everything

    def test_fill_value_is_the_border_median(self, real):
        assert real[1].fill_value == border_median(real[1].train.images)


class Page(BaseHTTPRequestHandler):
    """Serves a page: complete, truncated, or never."""

    def do_GET(self):
        if self.path == "/silent":
            self.server.leave.wait()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello" if self.path == "/whole" else b"hel")
        if self.path == "/stalled":
            self.wfile.flush()
            self.server.leave.wait()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    """URL of a local server."""
    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        server.leave = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.leave.set()
        server.shutdown()
        thread.join()


def test_fetch_returns_the_whole_content(site):
    assert fetch(f"{site}/whole", timeout=5.0) == b"hello"


@pytest.mark.parametrize(
    ("page", "reason"),
    [("missing", "404"), ("cut", "interrupted"), ("silent", "no response|timed out"), ("stalled", "no response")],
)
def test_failed_transfer_raises(site, page, reason):
    start = time.monotonic()
    with pytest.raises(OSError, match=reason):
        fetch(f"{site}/{page}", timeout=0.2)
    assert time.monotonic() - start < 5


def test_timeout_covers_name_resolution(monkeypatch):
    release = threading.Event()

    def hang(*args, **kwargs):
        release.wait()
        raise socket.gaierror("released")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no response within 0\.2 seconds"):
        fetch("http://mirror.invalid/file", timeout=0.2)
    assert time.monotonic() - start < 5
    release.set()


def test_unknown_host_raises(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="not known"):
        fetch("http://mirror.invalid/file", timeout=5.0)
