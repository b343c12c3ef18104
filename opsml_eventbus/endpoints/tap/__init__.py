"""The tap: a bus of this machine as a Unix socket that speaks JSON lines (docs/tap-protocol.md).

protocol        what is said, pure                  folder      where sockets live, who may have which name
server          serve a bus: serve_tap              connection, sessions    one client of it
source, sink    TapSource, TapSink                  client      one conversation with it; which taps are live
"""

from .client import TapInfo, live_taps
from .folder import ensure_folder, is_live, live_sockets, socket_path, tap_folder
from .server import Tap, serve_tap
from .sink import TapSink
from .source import TapSource

__all__ = [
    "Tap",
    "TapInfo",
    "TapSink",
    "TapSource",
    "ensure_folder",
    "is_live",
    "live_sockets",
    "live_taps",
    "serve_tap",
    "socket_path",
    "tap_folder",
]
