from __future__ import annotations

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.scan import check_scan


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_scan_whose_name_is_not_utf8_is_refused(tmp_path, write_volume, kind) -> None:
    write_volume(tmp_path / "scan.nii.gz", seed=1)
    file = (tmp_path / "scan.nii.gz").rename(tmp_path / "scan\udcff.nii.gz")
    with pytest.raises(DataError, match=r"scan\\xff\.nii\.gz is not UTF-8; rename the file"):
        check_scan(file, kind=kind)
