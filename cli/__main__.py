"""`python -m opsml_eventbus_cli` is `eventbus`."""

from .main import main

main()
