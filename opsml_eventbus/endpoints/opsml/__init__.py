"""OpsML."""
