import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from nnunetv2_spmc import discovery
from nnunetv2_spmc.cli.train import start_several
from nnunetv2_spmc.train import parse_arguments
from nnunetv2_spmc.training.start import TrainingRequest
from tests.training.processes import free_port, run_in_two_processes, run_together
from tests.training_logs import log_of

STEP = Path(__file__).with_name("distributed_step.py")


@pytest.mark.supported(
    "several processes",
    "two processes give the gradient of one with the whole batch (gloo, on a CPU)",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("configuration", "views"), [("2d_small", "same"), ("3d_fullres_small", "weak-to-strong")]
)
def test_two_processes_step_as_one_with_the_whole_batch(
    make_trainer, planned_phantom, tmp_path, monkeypatch, configuration, views
):
    """Both passes and all loss parts; in 2D nnU-Net's Dice is one of the whole batch."""
    single = make_trainer(
        configuration=configuration,
        noise=0.0,
        lambda_max=1.0,
        views=views,
        paste_from="nothing",  # boxes and turns are drawn by each process
        turns=False,
        pseudo_loss="cross-entropy",
        unlabeled_batch_size=4,
        tau=0.9,
    )
    single.on_train_start()
    single.on_train_epoch_start()
    single.iteration = 3
    batch = next(single.dataloader_train)
    inputs = {
        "plans": planned_phantom.plans(),
        "dataset_json": planned_phantom.dataset_json(),
        "configuration": configuration,
        "iteration": single.iteration,
        "batch": batch,
    }
    torch.save(inputs, tmp_path / "inputs.pt")
    run_in_two_processes([sys.executable, str(STEP), str(tmp_path)])
    step = single._optimizer_step
    monkeypatch.setattr(single, "_optimizer_step", lambda: None)
    values = single.train_step(batch)
    weights = dict(single.joint_network.named_parameters())
    gradients = {n: p.grad.clone() for n, p in weights.items() if p.grad is not None}
    step()
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]

    for name, expected in gradients.items():
        ours, theirs = (rank["gradients"][name] for rank in ranks)
        assert torch.equal(ours, theirs), name
        # distributed nnU-Net gives the lowest output a weight of 1e-6 where it is 0 otherwise
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ranks[0]["weights"][name], weights[name], rtol=1e-4, atol=1e-6)
    for key in ("cps_main", "splat_auxiliary", "cdps_main", "taught_main"):
        mean = (ranks[0]["values"][key] + ranks[1]["values"][key]) / 2
        torch.testing.assert_close(mean, values[key], rtol=1e-4, atol=1e-6)
        assert values[key] > 0


@pytest.mark.supported(
    "several processes", "two nodes by `torchrun -m nnunetv2_spmc.train` (gloo, on a CPU)"
)
@pytest.mark.slow
def test_torchrun_trains_resumes_and_validates_on_two_nodes(
    make_trainer, planned_phantom, monkeypatch, tmp_path
):
    """Two nodes of one process each, on two ports of this machine, from a pretrained checkpoint."""
    pretrained = make_trainer(epochs=1)
    pretrained.run_training()
    checkpoint = Path(pretrained.output_folder) / "checkpoint_final.pth"
    source = tmp_path / "pretrained.pth"
    checkpoint.rename(source)
    make_trainer(epochs=2, save_every=1)  # leaves its settings in the environment
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)  # found without
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def train(*options):
        port = free_port()
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        launcher += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
        arguments = ["500", "2d_small", "0", "-tr", "nnUNetTrainerSPMC", "-device", "cpu"]
        launcher += ["--master-port", str(port)]
        module = ["-m", "nnunetv2_spmc.train", *arguments, *options]
        commands = [[*launcher, "--node-rank", str(node), *module] for node in range(2)]
        return run_together(commands, [{}, {}])

    first, _ = train("-pretrained_weights", str(source))
    assert "The world size is 2" in first
    assert "Each step: 1 labeled and 1 unlabeled patches; 4 unlabeled cases." in first
    assert "tensors outside the main branch were filled" in first
    folder = Path(pretrained.output_folder)
    assert torch.load(folder / "checkpoint_final.pth", weights_only=False)["current_epoch"] == 2
    assert (folder / "validation" / "summary.json").is_file()
    (folder / "validation" / "summary.json").unlink()
    again, _ = train("--c")
    assert "Epoch 0" not in again  # it had finished: only the validation is left to do
    assert (folder / "validation" / "summary.json").is_file()


@pytest.mark.slow
def test_the_processes_of_num_gpus_train_together(make_trainer, monkeypatch):
    """As on several GPUs, but on the CPU, where they talk over gloo."""
    trainer = make_trainer(epochs=1, iterations_per_epoch=1)  # leaves its settings
    for variable in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "")  # put back afterwards
        monkeypatch.delenv(variable)
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    request = TrainingRequest(
        "500", "2d_small", 0, "nnUNetTrainerSPMC", "nnUNetPlans", "cpu", processes=2
    )
    start_several(request)
    folder = Path(trainer.output_folder)
    log = log_of(trainer)
    assert "Each step: 1 labeled and 1 unlabeled patches" in log
    assert torch.load(folder / "checkpoint_final.pth", weights_only=False)["current_epoch"] == 1
    assert (folder / "validation" / "summary.json").is_file()


def test_the_gpu_is_that_of_the_local_rank(make_trainer, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)  # both launchers set it
    assert make_trainer(device="cuda").device == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["500", "2d", "0", "-num_gpus", "2"], "give torchrun --nnodes and --nproc-per-node"),
        (["500", "2d", "0", "--c", "--val"], "--c cannot be combined"),
        (["500", "2d", "first"], 'must be a number or "all", got first'),
        (["500", "2d", "0", "--val_best", "--disable_checkpointing"], "--val_best needs"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit):
        parse_arguments(["500", "2d", "0"])
    assert "has 2 GPUs: lower torchrun's --nproc-per-node" in capsys.readouterr().err
