from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_spmc.raw.scan_facts import NO_FACTS, PERCENTILES, ScanFacts
from nnunetv2_spmc.raw.sites import compare_sites


def facts_with(values, seed, **changes):
    curve = tuple(np.percentile(values, PERCENTILES).tolist())
    facts = ScanFacts((str(seed),), "LPS", (64, 64, 30), (1.0, 1.0, 3.0), (curve,))
    return replace(facts, **changes)


def ct(seed, offset=0, **changes):
    """Air, and less tissue."""
    random = np.random.default_rng(seed)
    values = [random.normal(-1000, 10, 6000), random.normal(40, 60, 4000)]
    return facts_with(np.concatenate(values) + offset, seed, **changes)


def mr(seed, scale=1.0, inverted=False, **changes):
    values = np.random.default_rng(seed).gamma(1, 100 * scale, 5000)
    return facts_with(values.max() - values if inverted else values, seed, **changes)


LABELED = [ct(seed) for seed in range(4)]


def warnings_of(ours, theirs=LABELED, channels=("CT",), **options):
    return compare_sites(theirs, ours, channels, **options).warnings


def test_scans_of_one_site_have_a_table_and_no_warning():
    comparison = compare_sites(LABELED, [ct(9)], ["CT"], {0: (-100, 200)})
    assert comparison.warnings == ()
    table = {line.split("  ")[0]: line for line in comparison.lines()}
    assert list(table) == [
        "medians of scans",
        "orientation",
        "spacing",
        "field of view",
        "slices",
        "CT: median (0.5 to 99.5 %)",
        "CT: voxels in -100 to 200",
    ]
    assert table["spacing"].split() == ["spacing", *["1", "x", "1", "x", "3", "mm"] * 2]


def test_another_orientation_is_warned_of():
    (warning,) = warnings_of([ct(9, orientation="RPS"), ct(8)])
    assert warning.startswith(
        "unlabeled scans are oriented RPS, labeled ones LPS; nnU-Net does not reorient"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spacing_mm": (1, 1, 6), "size": (64, 64, 15)}, ["the median spacing", "15 slices"]),
        ({"size": (64, 64, 80)}, ["the median field of view", "80 slices"]),
        ({"size": (60, 70, 33)}, []),
    ],
)
def test_another_grid_is_warned_of(changes, expected):
    warnings = warnings_of([ct(9, **changes)])
    assert len(warnings) == len([e for e in expected if e != "15 slices"])
    for sentence, warning in zip(expected, warnings, strict=False):
        assert sentence in warning


def test_ct_that_is_not_in_hu_is_warned_of():
    (warning,) = warnings_of([ct(9, offset=1024)])  # air looks like tissue
    assert warning.startswith("the darkest voxels of unlabeled scans have ")
    assert "are they all in HU?" in warning
    (warning,) = warnings_of([ct(9, offset=5000)])
    assert warning.startswith("the median intensity of unlabeled scans, ")
    assert "lies outside of what the labeled ones have (-10" in warning
    assert warning.endswith("are they in HU?")


def test_ct_outside_of_the_window_of_the_plans_is_warned_of():
    lungs = facts_with(np.random.default_rng(0).normal(-900, 80, 5000), 0)
    (warning,) = warnings_of([lungs], windows={0: (-100, 200)})
    assert warning.startswith("0% of the voxels of unlabeled scans lie within -100 to 200")


def test_mr_is_compared_after_normalization():
    labeled = [mr(seed) for seed in range(4)]
    assert warnings_of([mr(9, scale=7)], labeled, ["T1"]) == ()
    (warning,) = warnings_of([mr(9, inverted=True)], labeled, ["T1"])
    assert "is it the same sequence?" in warning


@pytest.mark.parametrize("ours", [[], [NO_FACTS]])
def test_without_scans_to_compare_there_is_nothing_to_say(ours):
    comparison = compare_sites(LABELED, ours, ["CT"])
    assert (comparison.lines(), comparison.warnings) == ([], ())


def test_sites_of_real_scans_do_not_differ_from_themselves(shared_data):
    from nnunetv2_spmc.raw.scan_facts import facts_of_files

    files = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[:24]
    facts = [facts_of_files([str(file)]) for file in files]
    assert compare_sites(facts[::2], facts[1::2], ["MRI"]).warnings == ()


def test_the_largest_difference_is_known_and_another_orientation_is_larger_than_any():
    changes = {"size": (64, 64, 80), "spacing_mm": (1, 1, 30)}
    comparison = compare_sites(LABELED, [ct(9, **changes)], ["CT"])
    assert len(comparison.warnings) == 3
    assert comparison.largest.startswith("the median field of view")
    turned = compare_sites(LABELED, [ct(9, orientation="RPS", **changes)], ["CT"])
    assert turned.largest.startswith("unlabeled scans are oriented RPS")
    assert compare_sites(LABELED, [ct(9)], ["CT"]).largest == ""


@pytest.mark.parametrize("where", ["labeled", "unlabeled", "all unlabeled"])
def test_a_scan_with_more_axes_is_left_out(where):
    """Two time points, which preprocessing refuses by name."""
    odd = ct(10, size=(64, 64, 30, 2), spacing_mm=(1.0, 1.0, 3.0, 1.0), orientation="")
    ours = [odd] if where == "all unlabeled" else [ct(9), *([odd] if where == "unlabeled" else [])]
    theirs = [*LABELED, *([odd] if where == "labeled" else [])]
    without = compare_sites(LABELED, [s for s in ours if s is not odd], ["CT"])
    assert compare_sites(theirs, ours, ["CT"]) == without
