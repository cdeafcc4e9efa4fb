"""The doors: command line, options and the pipelines themselves, assembled from `transforms`."""
