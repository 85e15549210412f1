"""The suite; hypothesis tries the same examples in every run, on every machine.

HYPOTHESIS_PROFILE=explore tries new ones.
"""

import os

from hypothesis import settings

# how long one example takes says nothing on a busy machine
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
