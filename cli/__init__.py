"""The command line, installed as `opsml_eventbus_cli`."""
