"""What is wrong with an installation or a dataset, and what to do: nnUNetv2_spmc_doctor."""
