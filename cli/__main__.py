"""`python -m opsml_eventbus_cli` is `eventbus`."""

from .entry import main

main()
