"""The folder that the environment variable nnUNet_extTrainer names."""
