"""Property tests on machines that others use, too: how long an example takes says nothing."""

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None, max_examples=50)
settings.load_profile("shared-machine")
