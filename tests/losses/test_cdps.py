import torch

from nnunetv2_spmc.losses import cdps, common_difficulty, confidence, masked_mse, probabilities


def branches(seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, classes, 6, 6, generator=generator)
    main, auxiliary = (probabilities(z).requires_grad_() for z in logits)
    labels = torch.randint(0, classes, (2, 6, 6), generator=generator)
    target = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()
    return main, auxiliary, target


def test_mask_needs_both_branches_suspicious_and_includes_tau():
    main = torch.tensor([0.70, 0.71, 0.60, 0.90]).view(1, 1, 4)
    auxiliary = torch.tensor([0.70, 0.60, 0.71, 0.90]).view(1, 1, 4)
    assert common_difficulty(main, auxiliary, 0.7).flatten().tolist() == [True, False, False, False]


def test_ignored_voxels_are_never_selected():
    low = torch.full((1, 1, 3), 0.5)
    valid = torch.tensor([True, False, True]).view(1, 1, 3)
    assert common_difficulty(low, low, 0.7, valid).flatten().tolist() == [True, False, True]


def test_tau_one_gives_the_plain_mean_squared_error():
    main, auxiliary, target = branches()
    mask = common_difficulty(confidence(main), confidence(auxiliary), 1.0)
    loss_main, loss_auxiliary = cdps(main, auxiliary, target, mask)
    torch.testing.assert_close(loss_main, torch.nn.functional.mse_loss(main, target))
    torch.testing.assert_close(loss_auxiliary, torch.nn.functional.mse_loss(auxiliary, target))


def test_tau_below_the_uniform_confidence_selects_nothing():
    main, auxiliary, target = branches(classes=4)
    mask = common_difficulty(confidence(main), confidence(auxiliary), 0.24)
    assert [loss.item() for loss in cdps(main, auxiliary, target, mask)] == [0.0, 0.0]


def test_each_loss_has_a_gradient_to_its_own_branch_only():
    main, auxiliary, target = branches()
    mask = common_difficulty(confidence(main), confidence(auxiliary), 0.7)
    loss_main, _ = cdps(main, auxiliary, target, mask)
    gradients = torch.autograd.grad(loss_main, [main, auxiliary], allow_unused=True)
    assert torch.count_nonzero(gradients[0]) == 4 * mask.sum()
    assert gradients[1] is None


def test_both_branches_use_the_same_mask():
    main, auxiliary, target = branches()
    mask = common_difficulty(confidence(main), confidence(auxiliary), 0.5)
    _, loss_auxiliary = cdps(main, auxiliary, target, mask, reduction="masked")
    assert loss_auxiliary == masked_mse(auxiliary, target, mask, reduction="masked")
