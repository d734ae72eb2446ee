"""Files: the known digest of known bytes, and nothing half written beside a file that was whole."""

import pytest

from scans.files import Lock, content_hash, unused, write_bytes, write_whole


def test_the_hash_is_sha_256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the first example of FIPS 180-2
    assert content_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_is_made_and_nothing_but_the_file_is_in_it(tmp_path):
    write_bytes(tmp_path / "new" / "file", b"one")
    write_bytes(tmp_path / "new" / "file", memoryview(b"two"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").read_bytes() == b"two"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk full", "stopped"])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    write_bytes(tmp_path / "file", b"whole")

    def fail(out):
        out.write(b"ha")
        raise error

    with pytest.raises(type(error)):
        write_whole(tmp_path / "file", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_name_is_free_when_nothing_lies_under_any_of_its_suffixes(tmp_path):
    assert unused(tmp_path, "a", (".x", ".y")) == "a"
    (tmp_path / "a.y").touch()
    (tmp_path / "a-2.x").touch()
    assert unused(tmp_path, "a", (".x", ".y")) == "a-3"


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path):
    one, other = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    one.take()
    with pytest.raises(BlockingIOError):
        other.take()
    other.release()  # which it does not hold
    with pytest.raises(BlockingIOError):
        other.take()
    one.release()
    other.take()
    other.release()
    assert not list(tmp_path.iterdir())
