"""Where chords are kept: the seam; Redis, memory, and memory that another process serves."""

from amqflow.workflow.stores.open import LEASE, Lifetimes, no_chords, open_chords
from amqflow.workflow.stores.seam import ChordStore

__all__ = ["LEASE", "ChordStore", "Lifetimes", "no_chords", "open_chords"]
