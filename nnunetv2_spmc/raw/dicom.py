"""A DICOM series as a volume: geometry first, then the physical values of every slice."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom_files import DicomFile, find_series
from nnunetv2_spmc.raw.dicom_geometry import stack_of
from nnunetv2_spmc.raw.dicom_slices import CONVERT, slices_of
from nnunetv2_spmc.raw.dicom_values import physical_values


@dataclass(frozen=True)
class DicomSeries:
    """A folder that holds exactly one DICOM series, in itself or below."""

    folder: Path

    def __str__(self) -> str:
        """The source, as messages and split.json name it."""
        return str(self.folder)

    def read(self) -> sitk.Image:
        """Return the series as a volume; refuse images that do not form one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pydicom; what matters is checked and raised
            images = [image for file in self._files() for image in slices_of(file)]
            stack = stack_of(images, self.folder)
            voxels = physical_values(stack)
        volume = sitk.GetImageFromArray(voxels)
        volume.SetSpacing(stack.spacing)
        volume.SetOrigin(stack.origin)
        volume.SetDirection(stack.direction)
        return volume

    def _files(self) -> tuple[DicomFile, ...]:
        found = find_series(self.folder)
        if not found:
            raise ConversionError(
                f"There is no DICOM series in {self.folder}; remove the folder, or say with "
                "--channel_files which files of it to take."
            )
        if len(found) > 1:
            names = "; ".join(str(series) for series in found[:5])
            names += f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ConversionError(
                f"{self.folder} holds {len(found)} DICOM series ({names}); keep one for each case."
            )
        files = found[0].files
        volumes = [file for file in files if file.num_frames > 1]
        parts_of = {file.header.get("ConcatenationUID") or file.name for file in volumes}
        if len(parts_of) > 1:
            raise ConversionError(
                f"The DICOM series in {self.folder} is several volumes: {len(volumes)} files with "
                f"many frames each, {volumes[0].name} and {volumes[1].name} for example; {CONVERT}."
            )
        return files
