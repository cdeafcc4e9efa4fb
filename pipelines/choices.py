"""How a run goes about its request, as the options of its command say."""

from dataclasses import dataclass
from typing import Any

from dicomveil.filters import Filter
from pipelines.limits import NO_LIMITS, Limits


@dataclass(frozen=True)
class Choices:
    """What a command was told beside its places, request and key.

    Attributes:
      overwrite: whether it goes on in an output made with another request, edition, recipe or key.
      anew: whether conflicts that earlier runs met are settled anew.
      reprocess: which of what the ledger holds as settled is processed again, one of `transforms.ledger.REPROCESS`, or
        "".
      retire: whether outputs of sources that are gone are to go.
      limits: how much it takes, and how much may fail.
      taking: what is taken of the inputs; None for everything.
      maps: how studies' maps reach their instances, one of `transforms.maps.WAYS`.
      kms_key: of the store's key management, which encrypts the outputs; "" where their bucket decides.
    """

    overwrite: bool = False
    anew: bool = False
    reprocess: str = ""
    retire: bool = False
    limits: Limits = NO_LIMITS
    taking: Filter | None = None
    kms_key: str = ""
    maps: str = "auto"

    def question(self) -> dict[str, Any]:
        """Those under which another run would be planned otherwise, as a run's state has them."""
        return {
            "anew": self.anew, "reprocess": self.reprocess, "retire": self.retire, "limits": list(self.limits),
        }  # fmt: skip
