"""OpsML's own payloads, with exactly its fields, order and defaults.

Source: `demml/opsml`, commit 48840ec (2026-05), and the rows its server 3.0.0rc16 writes. The domains below are what
that server emits; a value outside them is kept as it is, because servers move on.

`username`, `client_ip` and `user_agent` are what the client *claims*: OpsML reads them from request headers.
"""

from __future__ import annotations

from .event import Payload, event_type

OPERATIONS = (
    "Create", "Read", "Write", "Delete", "List", "Info", "Encrypt", "Decrypt", "Load", "Check", "Update", "Unknown",
)  # fmt: skip
RESOURCE_TYPES = ("File", "Database", "Card", "Drift")
STATUSES = ("Success", "Failed", "Denied")
REGISTRY_TYPES = (
    "data", "model", "experiment", "audit", "metrics", "hardware_metrics", "parameters", "users", "artifact_key",
    "prompt", "service", "artifact", "evaluation", "mcp", "agent", "skill", "subagent", "tool",
)  # fmt: skip
CLAIMED_FIELDS = frozenset({"username", "client_ip", "user_agent"})
EMITTED_STATUSES = frozenset({"Success"})  # the only one today's server writes: failed requests emit nothing

DOMAINS: dict[str, tuple[str, ...]] = {
    "operation": OPERATIONS,
    "resource_type": RESOURCE_TYPES,
    "status": STATUSES,
    "registry_type": REGISTRY_TYPES,
}


@event_type("audit")
class AuditEvent(Payload):
    """One request to an OpsML server, as its `opsml_audit_event` table has it."""

    username: str = "guest"
    client_ip: str = "unknown"
    user_agent: str = "unknown"
    operation: str = "Write"
    resource_type: str = "File"
    resource_id: str = "unknown"
    access_location: str | None = None
    status: str = "Success"
    error_message: str | None = None
    metadata: str = "unknown"
    registry_type: str | None = "Model"
    route: str = "unknown"


@event_type("space_name")
class SpaceNameEvent(Payload):
    """A space and a name that were used together. OpsML sends it on the bus; it never reaches the audit table."""

    space: str
    name: str
    registry_type: str
