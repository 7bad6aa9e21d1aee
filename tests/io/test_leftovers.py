"""What a killed writer leaves behind goes away with the next writer of the same product, and nothing else does."""

from pathlib import Path

from dl3flow.io.files import write_text


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".tmp-123-0a1b2c3d-sed.ecsv").write_text("half")
    kept = [".tmp-123-0a1b2c3d-my-sed.ecsv", ".tmp-123-0a1b2c3d-sed.ecsv.gz", "tmp-123-0a1b2c3d-sed.ecsv"]
    for name in kept:
        (tmp_path / name).write_text("another product")
    write_text(tmp_path / "sed.ecsv", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "sed.ecsv"])
    assert (tmp_path / "sed.ecsv").read_text() == "whole"
