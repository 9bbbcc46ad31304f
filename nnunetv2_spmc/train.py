"""nnUNetv2_spmc_train under the name that torchrun takes: `torchrun ... -m nnunetv2_spmc.train`."""

from nnunetv2_spmc.cli.train import main, parse_arguments

__all__ = ["main", "parse_arguments"]

if __name__ == "__main__":
    main()
