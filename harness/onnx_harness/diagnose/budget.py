"""The budget of a diagnosis, for whoever offers it: importing this costs nothing."""

DEFAULT_SECONDS = 60.0
