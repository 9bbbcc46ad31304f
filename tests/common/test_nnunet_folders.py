from __future__ import annotations

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
    refuse_path,
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


@pytest.mark.parametrize("variable", FOLDERS)
@pytest.mark.parametrize("folder", FOLDERS.values())
def test_a_tilde_which_nnunet_does_not_expand_is_refused_in_any_of_them(
    variable, folder, monkeypatch, tmp_path
) -> None:
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(variable, "~/data")
    sentence = f"^{variable} is ~/data, which nnU-Net takes literally; write the folder in full\\.$"
    with pytest.raises(DataError, match=sentence):
        folder()


def test_a_file_in_place_of_the_results_is_named(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(RESULTS, str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"{RESULTS} names {tmp_path}/file, which is not a folder"):
        results_folder()


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
    with pytest.raises(DataError, match=f"{variable} names {tmp_path}/gone, which is not a folder"):
        folder(must_exist=True)


@pytest.mark.parametrize("wanted", [510, "510", "Dataset510_Liver"])
def test_a_dataset_is_found_by_name_and_id(raw, wanted) -> None:
    assert find_dataset(wanted) == "Dataset510_Liver"
    assert raw_dataset_folder(find_dataset(wanted)) == raw / "Dataset510_Liver"


def test_an_id_of_two_datasets_is_refused(raw) -> None:
    with pytest.raises(DataError, match=r"have the id 7: Dataset007_Heart, Dataset007_Lung; give"):
        find_dataset(7)


def test_a_number_may_have_any_digits_as_nnunet_reads_them(raw) -> None:
    (raw / "Dataset1000_Far").mkdir()
    assert find_dataset("0510") == find_dataset("510")
    assert find_dataset("1000") == find_dataset("Dataset1000_Far") == "Dataset1000_Far"
    with pytest.raises(DataError, match="no dataset 100 in"):  # which nnU-Net takes it for
        find_dataset(100)


def test_a_dataset_that_nnunet_finds_by_its_name_only_is_found_so(raw) -> None:
    (raw / "Dataset0511_Long").mkdir()
    assert find_dataset("Dataset0511_Long") == "Dataset0511_Long"
    with pytest.raises(DataError, match=r"not find Dataset0511_Long by .* looks for Dataset511"):
        find_dataset("511")


def test_datasets_that_nnunet_takes_for_one_another_are_refused_by_id(raw) -> None:
    (raw / "Dataset5100_Other").mkdir()
    with pytest.raises(DataError, match="the id 510: Dataset5100_Other, Dataset510_Liver; give"):
        find_dataset(510)
    assert find_dataset("Dataset510_Liver") == "Dataset510_Liver"


@pytest.mark.parametrize("variable", [PREPROCESSED, RESULTS])
def test_datasets_of_one_id_in_different_folders_are_refused(
    raw, variable, monkeypatch, tmp_path_factory
) -> None:
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setenv(variable, str(other))
    (other / "Dataset510_Liver").mkdir()
    assert find_dataset(510) == "Dataset510_Liver"
    (other / "Dataset510_Old").mkdir()
    sentence = f"the id 510: Dataset510_Liver, Dataset510_Old in {other}; give"
    with pytest.raises(DataError, match=sentence):
        find_dataset(510)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\0", None, 3])
def test_names_that_leave_their_folder_are_refused(name) -> None:
    with pytest.raises(DataError, match="data_identifier must be a plain name, not a path"):
        refuse_path(name, "data_identifier")
    refuse_path("nnUNetPlans_3d.fullres", "data_identifier")


@pytest.mark.parametrize("wanted", [8, "Liver", "Dataset510", 51])
def test_an_unknown_dataset_is_named_with_the_known_ones(raw, wanted) -> None:
    known = "Dataset007_Heart, Dataset007_Lung, Dataset510_Liver"
    with pytest.raises(DataError, match=f"no dataset {wanted} in {raw}; the folder has {known}"):
        find_dataset(wanted)


def test_preprocessed_data_may_be_all_that_is_kept(raw, monkeypatch) -> None:
    assert raw_dataset_folder("Dataset511_Spleen") is None
    monkeypatch.delenv(RAW)
    assert raw_dataset_folder("Dataset510_Liver") is None
