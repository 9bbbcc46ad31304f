import json
from dataclasses import dataclass, fields, replace

import pytest

from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.methods import (
    TRAINERS,
    nnUNetTrainerCPS,
    nnUNetTrainerMeanTeacher,
    nnUNetTrainerSPMC,
    nnUNetTrainerSPMC_noNoise,
    nnUNetTrainerSPMC_paper,
    nnUNetTrainerSupervisedControl,
    nnUNetTrainerViewControl,
)
from nnunetv2_spmc.methods.spmc_variants import PAPER
from nnunetv2_spmc.training.settings import (
    TrainingSettings,
    changed_schedule,
    changed_settings,
    register_method,
)

IN_DATASET, IN_ENVIRONMENT = '"spmc" in dataset.json', "$nnUNet_spmc_settings"


def resolve(dataset_json=None, environment=None, trainer=nnUNetTrainerSPMC):
    variables = {} if environment is None else {"nnUNet_spmc_settings": environment}
    return trainer.resolved_settings(dataset_json or {}, variables)


def test_the_defaults_are_those_of_the_paper_but_for_ours():
    resolved = resolve()
    method, training = resolved.method, resolved.training
    assert (method.tau, method.beta, method.temperature) == (0.7, 0.5, 0.1)
    assert (method.noise, method.shared_encoder) == (0.3, True)
    assert (training.lambda_max, training.ramp_start, training.ramp_end) == (1.0, 0.1, 0.3)
    assert (training.views, training.paste_from) == ("weak-to-strong", "labeled")
    assert method.reduction == "masked"
    assert resolved.origins == {}


def test_the_dataset_overrides_the_class_and_the_environment_the_dataset():
    resolved = resolve({"spmc": {"tau": 0.65, "beta": 0.3}}, '{"beta": 0.7}')
    assert (resolved.method.tau, resolved.method.beta) == (0.65, 0.7)
    assert resolved.origins == {"tau": IN_DATASET, "beta": IN_ENVIRONMENT}


def test_keys_of_a_method_may_stand_under_its_name():
    resolved = resolve({"spmc": {"epochs": 7, "SPMC": {"tau": 0.65}}}, '{"SPMC": {"beta": 0.7}}')
    assert (resolved.training.epochs, resolved.method.tau, resolved.method.beta) == (7, 0.65, 0.7)
    assert resolved.notes == ()
    ablation = resolve({"spmc": {"SPMC": {"tau": 0.65}}}, trainer=nnUNetTrainerSPMC_noNoise)
    assert ablation.method.tau == 0.65


@pytest.mark.parametrize("trainer", [nnUNetTrainerSupervisedControl, nnUNetTrainerMeanTeacher])
@pytest.mark.parametrize("block", [{"tau": 0.65}, {"SPMC": {"tau": 0.65}}])
def test_settings_of_another_method_are_ignored_with_a_note(trainer, block):
    resolved = resolve({"spmc": block | {"epochs": 7}}, trainer=trainer)
    assert resolved.training.epochs == 7
    assert "tau" not in resolved.flat()
    (note,) = resolved.notes
    assert f"Ignored in {IN_DATASET}" in note
    assert next(iter(block)) in note


def test_a_method_without_settings_of_its_own_has_a_block_too():
    block = {"spmc": {"lambda_max": 0.5, "CPS": {"lambda_max": 0.2}}}
    resolved = nnUNetTrainerCPS.resolved_settings(block, {})
    assert (resolved.training.lambda_max, resolved.notes) == (0.2, ())
    resolved = nnUNetTrainerMeanTeacher.resolved_settings(block, {})
    assert resolved.training.lambda_max == 0.5
    assert "['CPS']" in resolved.notes[0]


def test_views_of_labeled_patches_that_change_nothing_are_refused():
    with pytest.raises(SettingsError, match=r"labeled_views must be 0 without views; set paste_"):
        TrainingSettings(labeled_views=0.5)
    assert TrainingSettings(labeled_views=0.5, turns=True).labeled_views == 0.5
    with pytest.raises(SettingsError, match=r"viewed_pass must be 'never' without views; set past"):
        TrainingSettings(viewed_pass="between")
    assert TrainingSettings(viewed_pass="between", flips=True).viewed_pass == "between"
    for key, value in (("viewed_pass", "always"), ("labeled_views", 0.5)):
        with pytest.raises(SettingsError, match=r"turns or \(with mirroring\) flips, too"):
            TrainingSettings(**{key: value}, flips=True, mirroring=False)


def test_an_unknown_key_under_the_name_of_a_method_is_refused():
    with pytest.raises(SettingsError, match="Unknown setting 'tao' of SPMC in"):
        resolve({"spmc": {"SPMC": {"tao": 0.65}}})
    with pytest.raises(SettingsError, match=r"SPMC in .* must be a JSON object"):
        resolve({"spmc": {"SPMC": 0.65}})


def test_the_control_has_the_settings_of_every_trainer_and_none_of_a_method():
    assert resolve(trainer=nnUNetTrainerSupervisedControl).flat().keys() == {
        field.name for field in fields(TrainingSettings)
    }


def test_a_method_cannot_take_a_key_of_every_trainer():
    @dataclass(frozen=True)
    class Settings:
        epochs: int = 3

    with pytest.raises(ValueError, match="Mine has settings of every trainer: epochs"):
        register_method("Mine", Settings)


def test_the_environment_may_name_a_file(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"epochs": 7}))
    assert resolve(environment=str(file)).training.epochs == 7


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"tao": 0.7}, "Unknown setting 'tao' in .*dataset.json; known: "),
        ({"tau": 1.5}, r"tau must be in \[0, 1\], got 1.5"),
        ({"tau": "0.7"}, "tau must be of type float, got '0.7'"),
        ({"tau": float("nan")}, "tau must be finite"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be of type int"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"cdps": 1}, "cdps must be of type bool, got 1"),
        ({"temperature": 0}, r"temperature must be in \(0, 1\]"),
        ({"lambda_max": -1}, "lambda_max must be at least 0"),
        ({"noise": 1.0}, r"noise must be in \[0, 1\)"),
        ({"ramp_start": 1.0}, r"ramp_start must be in \[0, 1\)"),
        ({"ramp_start": 0.5, "ramp_end": 0.4}, r"ramp_end must be between ramp_start \(0.5\)"),
        ({"views": "weak"}, "views must be one of same, weak-to-strong, got 'weak'"),
        ({"paste_from": "all"}, "paste_from must be one of nothing, labeled, unlabeled, both"),
        ({"labeled_views": 2}, r"labeled_views must be in \[0, 1\]"),
        ({"paste_probability": 0}, r"paste_probability must be in \(0, 1\]"),
        ({"reduction": "mean"}, "reduction must be one of all, masked, got 'mean'"),
        ({"teaching": "low"}, "teaching must be one of high-to-low"),
        ({"unlabeled_batch_size": 0}, "unlabeled_batch_size must be at least 1"),
        ({"save_minutes": -1}, "save_minutes must be at least 0, got -1"),
        ({"keep_every": -1}, "keep_every must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"epochs": 1e23}, r"epochs must be at most 1000000, got 1e\+23"),
        ({"epochs": 10**23}, "epochs must be at most 1000000, got 1000"),
        ({"epochs": float("inf")}, "epochs must be at most 1000000, got inf"),
        ({"epochs": float("nan")}, "epochs must be of type int, got nan"),
        ({"epochs": -1e23}, "epochs must be at least 1, got -1e"),
        ({"epochs": "1e3"}, "epochs must be of type int, got '1e3'"),
        ({"epochs": None}, "epochs must be of type int, got None"),
        ({"iterations_per_epoch": 10**30}, "iterations_per_epoch must be at most"),
        ({"validation_iterations": 10**30}, "validation_iterations must be at most"),
        ({"unlabeled_batch_size": 10**30}, "unlabeled_batch_size must be at most"),
        ({"save_minutes": 10**400}, "save_minutes must be at most"),
        ({"initial_lr": 10**400}, "initial_lr must be at most"),
        ({"initial_lr": 0}, "initial_lr must be positive"),
        ({"lambda_max": 1e300}, "lambda_max must be at most"),
        ({"lambda_max": True}, "lambda_max must be of type float"),
        ({"beta": 10**400}, "beta must be at most"),
        ({"tau": 10**400}, "tau must be in"),
        ({"temperature": 1e-300}, "temperature must be in .* not below 1e-6"),
        ({"seed": 2**64}, "seed must be at most"),
    ],
)
def test_a_bad_setting_is_refused_by_name(block, message):
    with pytest.raises(SettingsError, match=message):
        resolve({"spmc": block})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no/such/file.json", "neither"),
        ("{tau: 1}", "not valid JSON"),
        ('{"epochs": 2, "epochs": 3}', "it has the key 'epochs' twice"),
        (f'{{"epochs": {"1" * 9999}}}', "not valid JSON"),
        ('{"a":' * 9999, "not valid JSON"),
        ("x" * 9999, "neither"),
        ("~nobody-of-this-name/settings.json", "neither"),
        ("/", "neither"),
    ],
)
def test_a_bad_environment_variable_is_refused(value, message):
    with pytest.raises(SettingsError, match=message):
        resolve(environment=value)


def test_a_file_of_settings_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "settings.json"
    file.write_bytes('{"epochs": 7}'.encode("utf-16"))
    with pytest.raises(SettingsError, match=r"settings\.json is not UTF-8 text"):
        resolve(environment=str(file))


def test_a_block_that_is_no_object_is_refused():
    with pytest.raises(SettingsError, match="must be a JSON object"):
        resolve({"spmc": [1]})


def test_changes_are_described():
    before = {"tau": 0.7, "beta": 0.5}
    assert changed_settings(before, {"tau": 0.65, "beta": 0.5}) == ["tau: 0.7 -> 0.65"]


def test_a_setting_of_another_version_is_no_change():
    assert changed_settings({"tau": 0.7, "gone": 1}, {"tau": 0.7, "new": 2}) == []


def test_another_schedule_is_named_and_no_other_method():
    before = {"epochs": 200, "save_minutes": 10.0, "save_every": 50, "tau": 0.7}
    now = {"epochs": 400, "save_minutes": 0, "save_every": 50, "keep_every": 5, "tau": 0.6}
    assert changed_settings(before, now) == ["tau: 0.7 -> 0.6"]
    assert changed_schedule(before, now) == [
        "epochs 200 -> 400: learning rate and ramp follow the new length from here",
        "save_minutes 10.0 -> 0",
    ]


def test_every_ablation_differs_from_the_method_in_what_its_name_says():
    differences = {
        "noCDPS": {"cdps": False},
        "noSPLAT": {"splat": False},
        "noNoise": {"noise": 0.0},
        "cpsOnly": PAPER | {"noise": 0.0, "cdps": False, "splat": False},
        "noUnlabeled": {"lambda_max": 0.0},
        "ordinaryToLow": {"teaching": "ordinary-to-low"},
        "highToOrdinary": {"teaching": "high-to-ordinary"},
        "separateEncoders": {"shared_encoder": False},
    }
    trainers = {t.__name__.partition("_")[2]: t for t in TRAINERS if "SPMC_" in t.__name__}
    smoke = trainers.pop("smoke")
    trainers.pop("paper")
    assert trainers.keys() == differences.keys()
    for name, trainer in trainers.items():
        assert trainer.fixed_settings == differences[name]
        assert trainer.default_settings == nnUNetTrainerSPMC.default_settings
        assert trainer.default_method_settings == nnUNetTrainerSPMC.default_method_settings
    changed = {"epochs": 2, "iterations_per_epoch": 5, "validation_iterations": 2}
    assert smoke.default_settings == replace(nnUNetTrainerSPMC.default_settings, **changed)


def test_the_default_is_the_recipe_that_the_search_chose():
    shared, own = nnUNetTrainerSPMC.default_settings, nnUNetTrainerSPMC.default_method_settings
    assert (shared.unlabeled_every, shared.turns, own.pseudo_loss) == (2, True, "nnunet")
    assert (shared.views, shared.paste_from, shared.lambda_max) == ("weak-to-strong", "labeled", 1)
    assert nnUNetTrainerViewControl.default_settings.turns  # it has the same views


def test_the_trainer_of_the_paper_fixes_its_literal_reading():
    fixed = nnUNetTrainerSPMC_paper.fixed_settings
    numbers = {key: fixed[key] for key in ("lambda_max", "beta", "temperature", "noise")}
    assert numbers == {"lambda_max": 0.1, "beta": 0.5, "temperature": 0.1, "noise": 0.3}
    readings = {"reduction": "all", "trust_on": "sharpened", "sharpening": "binary"}
    readings |= {"teaching": "high-to-low", "noise_levels": "all"}
    readings |= {"pseudo_loss": "cross-entropy", "teacher": "other"}
    assert {key: fixed[key] for key in readings} == readings
    assert fixed["cdps"] is fixed["splat"] is True
    ours = {"ramp_start": 0.0, "ramp_end": 1.0, "views": "same", "paste_from": "nothing"}
    ours |= {"turns": False, "flips": False, "labeled_views": 0.0, "unlabeled_every": 1}
    ours |= {"viewed_pass": "never"}
    assert {key: fixed[key] for key in ours} == ours
    assert fixed.keys() == {*numbers, *readings, *ours, "cdps", "splat"}


def test_what_the_name_of_a_trainer_promises_cannot_be_changed():
    message = r"noise is 0.0 in this trainer, .*\$nnUNet_spmc_settings asks for 0.3: leave it out"
    with pytest.raises(SettingsError, match=message):
        resolve(environment='{"noise": 0.3}', trainer=nnUNetTrainerSPMC_noNoise)
    same = resolve(environment='{"noise": 0.0, "tau": 0.6}', trainer=nnUNetTrainerSPMC_noNoise)
    assert (same.method.noise, same.method.tau) == (0.0, 0.6)
