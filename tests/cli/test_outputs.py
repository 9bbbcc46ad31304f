"""Commands refuse outputs that would replace inputs, before they read a model."""

from __future__ import annotations

import pytest

from nnunetv2_spmc.cli import rank, report, uncertainty


def refused(command, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, str)
    return ended.value.code


@pytest.fixture
def scan(tmp_path):
    """A scan of a dataset in nnU-Net's layout."""
    dataset = tmp_path / "Dataset510_Liver"
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir(parents=True)
    (dataset / "dataset.json").write_text('{"labels": {"background": 0}}')
    (dataset / "imagesTr" / "a_0000.nii.gz").write_bytes(b"\x1f\x8b the voxels")
    return dataset / "imagesTr" / "a_0000.nii.gz"


def test_a_report_does_not_replace_another_file(scan, tmp_path) -> None:
    assert "is there and no report; name another" in refused(report, "-o", scan, tmp_path / "run")
    page = tmp_path / "report.html"
    page.write_text("\n<!DOCTYPE html><title>of before</title>")
    assert "is there and no report" not in refused(report, "-o", page, tmp_path / "run")


def test_a_ranking_does_not_replace_another_file(scan, tmp_path) -> None:
    options = ("-d", "510", "-m", tmp_path / "model", "-o")
    assert "is there and no ranking; name another" in refused(rank, *options, scan)
    table = tmp_path / "ranking.csv"
    table.write_text("rank,case,patient\n")
    assert "is there and no ranking" not in refused(rank, *options, table)


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr", "labelsTr/../imagesTr", "link"])
def test_maps_do_not_replace_images_and_references(scan, tmp_path, name) -> None:
    dataset = scan.parents[1]
    (dataset / "link").symlink_to(dataset / "labelsTr")
    options = ("-i", scan.parent, "-m", tmp_path / "model")
    assert "that would be replaced; name another" in refused(
        uncertainty, *options, "-o", dataset / name
    )
    assert "replaced" not in refused(uncertainty, *options, "-o", dataset / "maps")


def test_maps_are_not_written_among_the_images(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    options = ("-i", tmp_path / "images", "-m", tmp_path / "model", "-o", tmp_path / "images")
    assert "that would be replaced; name another" in refused(uncertainty, *options)
