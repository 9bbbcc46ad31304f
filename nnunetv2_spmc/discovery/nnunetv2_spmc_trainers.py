"""Re-exports of the trainer classes, for nnU-Net's search in nnUNet_extTrainer.

Nothing may be defined here: nnU-Net drops the modules of this folder from sys.modules after its
search, and classes defined in them could not be pickled for spawned workers.
"""

from nnunetv2_spmc.methods import *  # noqa: F403
