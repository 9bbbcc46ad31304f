"""One module per method; every class here can be named as the trainer of nnUNetv2_train."""

from nnunetv2_spmc.methods.cps import nnUNetTrainerCPS
from nnunetv2_spmc.methods.filter_match import nnUNetTrainerFilterMatch
from nnunetv2_spmc.methods.mean_teacher import nnUNetTrainerMeanTeacher
from nnunetv2_spmc.methods.spmc import nnUNetTrainerSPMC
from nnunetv2_spmc.methods.spmc_variants import (
    nnUNetTrainerSPMC_cpsOnly,
    nnUNetTrainerSPMC_highToOrdinary,
    nnUNetTrainerSPMC_noCDPS,
    nnUNetTrainerSPMC_noNoise,
    nnUNetTrainerSPMC_noSPLAT,
    nnUNetTrainerSPMC_noUnlabeled,
    nnUNetTrainerSPMC_ordinaryToLow,
    nnUNetTrainerSPMC_paper,
    nnUNetTrainerSPMC_separateEncoders,
    nnUNetTrainerSPMC_smoke,
)
from nnunetv2_spmc.methods.supervised_control import nnUNetTrainerSupervisedControl
from nnunetv2_spmc.methods.view_control import nnUNetTrainerViewControl
from nnunetv2_spmc.methods.weak_to_strong import nnUNetTrainerWeakToStrong

TRAINERS = (
    nnUNetTrainerSPMC,
    nnUNetTrainerSPMC_paper,
    nnUNetTrainerSPMC_smoke,
    nnUNetTrainerSPMC_noCDPS,
    nnUNetTrainerSPMC_noSPLAT,
    nnUNetTrainerSPMC_noNoise,
    nnUNetTrainerSPMC_cpsOnly,
    nnUNetTrainerSPMC_noUnlabeled,
    nnUNetTrainerSPMC_ordinaryToLow,
    nnUNetTrainerSPMC_highToOrdinary,
    nnUNetTrainerSPMC_separateEncoders,
    nnUNetTrainerCPS,
    nnUNetTrainerMeanTeacher,
    nnUNetTrainerFilterMatch,
    nnUNetTrainerWeakToStrong,
    nnUNetTrainerSupervisedControl,
    nnUNetTrainerViewControl,
)

__all__ = ["TRAINERS", *(trainer.__name__ for trainer in TRAINERS)]
