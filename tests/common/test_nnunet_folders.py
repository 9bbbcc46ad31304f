from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    PREPROCESSED,
    RAW,
    RESULTS,
    find_dataset,
    folder_if_set,
    preprocessed_folder,
    raw_dataset_folder,
    raw_folder,
    results_folder,
)

FOLDERS = {RAW: raw_folder, PREPROCESSED: preprocessed_folder, RESULTS: results_folder}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An nnUNet_raw with two datasets of one id, and another."""
    monkeypatch.setenv(RAW, str(tmp_path))
    for name in ("Dataset510_Liver", "Dataset007_Heart", "Dataset007_Lung"):
        (tmp_path / name).mkdir()
    (tmp_path / "Dataset008_File").touch()
    return tmp_path


@pytest.mark.parametrize(("variable", "folder"), FOLDERS.items())
def test_a_folder_is_where_its_variable_says(variable, folder, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "not there yet"))
    assert folder() == folder_if_set(variable) == tmp_path / "not there yet"
    monkeypatch.setenv(variable, "~/data")
    assert folder() == Path.home() / "data"


@pytest.mark.parametrize(("variable", "folder"), FOLDERS.items())
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(variable, folder, value, monkeypatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert folder_if_set(variable) is None
    sentence = f"^The environment variable {variable} is not set; export {variable}=/path/to/"
    with pytest.raises(DataError, match=sentence):
        folder()


@pytest.mark.parametrize(("variable", "folder"), list(FOLDERS.items())[:2])
def test_a_folder_that_must_exist_is_named(variable, folder, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    with pytest.raises(DataError, match=f"{variable} names {tmp_path}/gone, which is no folder"):
        folder(must_exist=True)


@pytest.mark.parametrize("wanted", [510, "510", "Dataset510_Liver"])
def test_a_dataset_is_found_by_name_and_id(raw, wanted) -> None:
    assert find_dataset(wanted) == "Dataset510_Liver"
    assert raw_dataset_folder(find_dataset(wanted)) == raw / "Dataset510_Liver"


def test_an_id_of_two_datasets_is_refused(raw) -> None:
    with pytest.raises(DataError, match=r"have the id 7: Dataset007_Heart, Dataset007_Lung; give"):
        find_dataset(7)


@pytest.mark.parametrize("wanted", [8, "Liver", "Dataset510", 51])
def test_an_unknown_dataset_is_named_with_the_known_ones(raw, wanted) -> None:
    known = "Dataset007_Heart, Dataset007_Lung, Dataset510_Liver"
    with pytest.raises(DataError, match=f"no dataset {wanted} in {raw}; the folder has {known}"):
        find_dataset(wanted)


def test_preprocessed_data_may_be_all_that_is_kept(raw, monkeypatch) -> None:
    assert raw_dataset_folder("Dataset511_Spleen") is None
    monkeypatch.delenv(RAW)
    assert raw_dataset_folder("Dataset510_Liver") is None
