"""`python -m pipelines` is the command `dicomveil`."""

from pipelines.cli import main

main()
