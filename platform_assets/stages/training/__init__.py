"""Training: the program that turns a training set into a checkpoint. Networks themselves live in `platform_assets.networks`."""
