from pathlib import Path

import pytest
from by_patient import dice_by_patient, differences_table, methods_by_patient, shares_table


def write(folder: Path, method: str, seed: int, dice: dict[str, float]) -> dict[str, str]:
    name = f"{method}-seed{seed}"
    (folder / name).mkdir()
    lines = ["case,label,dice"]
    lines += [f"{case},{label},{value}" for case, value in dice.items() for label in ("RV", "LV")]
    (folder / name / "metrics.csv").write_text("\n".join(lines) + "\n")
    return {"method": method, "seed": str(seed), "folder": name}


def cases(*values: float) -> dict[str, float]:
    """Two scans of each patient, one a tenth better and one a tenth worse than the value."""
    return {
        f"patient{number:03d}_frame{frame:02d}": value + (0.1 if frame == 1 else -0.1)
        for number, value in enumerate(values)
        for frame in (1, 9)
    }


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    return [
        write(tmp_path, "control", 1, cases(0.5, 0.6)),
        write(tmp_path, "control", 2, cases(0.7, 0.6)),
        write(tmp_path, "spmc", 1, cases(0.8, 0.8)),
        write(tmp_path, "view_control_boxes", 1, cases(0.7, 0.7)),
    ]


def test_both_scans_of_a_patient_are_one_unit(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    dice = dice_by_patient(tmp_path / rows[0]["folder"] / "metrics.csv")
    assert dice == {"patient000": pytest.approx(0.5), "patient001": pytest.approx(0.6)}


def test_seeds_are_averaged_first(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    assert methods_by_patient(tmp_path, rows)["control"].tolist() == pytest.approx([0.6, 0.6])


def test_differences_and_shares_are_those_of_the_means(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    differences = differences_table(tmp_path, rows)
    assert "| spmc | control | +0.200 | +0.200 to +0.200 | 2 of 2 patients |" in differences
    assert "| spmc | view_control_boxes | +0.100 |" in differences
    assert "control_longer" not in differences  # was not run
    assert "| view_control_boxes | 50 % | 50 to 50 % |" in shares_table(tmp_path, rows)


def test_runs_on_other_patients_are_refused(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    other = write(tmp_path, "control", 3, cases(0.5))
    with pytest.raises(ValueError, match="Runs of control measured different patients"):
        methods_by_patient(tmp_path, [*rows, other])
