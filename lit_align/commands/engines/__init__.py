"""What answers the prompts of ``lit-align sample``, one file each."""

from lit_align.commands.engines.contract import Answer, Decoding, Engine, Request
from lit_align.commands.engines.endpoint import EndpointEngine
from lit_align.commands.engines.local import LocalEngine

__all__ = ["Answer", "Decoding", "EndpointEngine", "Engine", "LocalEngine", "Request"]
