"""Random cases are the same in every run, so that a red test means a change; a campaign draws new ones."""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("campaign", deadline=None)
settings.load_profile("campaign" if "DICOMVEIL_CAMPAIGN" in os.environ else "steady")
