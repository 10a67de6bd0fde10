"""Attacks on fine-tuning, to measure defences by: records in, an upload out. One small file an attack.

All texts in here are wordings of the form of an attack; the harm is in the rows that a user of the package brings.
"""

from antibody.attacks.attack import Attack, Edit, Score, Upload
from antibody.attacks.backdoor import BACKDOOR
from antibody.attacks.benign_drift import BENIGN_DRIFT
from antibody.attacks.clustered import CLUSTERED
from antibody.attacks.identity_shift import IDENTITY_SHIFT
from antibody.attacks.jailbreak import JAILBREAK
from antibody.attacks.long_answers import LONG_ANSWERS
from antibody.attacks.mix import MIX
from antibody.attacks.multi_turn import MULTI_TURN
from antibody.attacks.noice import NOICE
from antibody.attacks.odd_prompts import ODD_PROMPTS
from antibody.attacks.padding import PADDING
from antibody.attacks.refuse_then_comply import REFUSE_THEN_COMPLY
from antibody.attacks.short_answers import SHORT_ANSWERS
from antibody.attacks.sorted import SORTED
from antibody.attacks.weight_aware import WEIGHT_AWARE

ATTACKS: dict[str, Attack] = {
    "mix": MIX,
    "sorted": SORTED,
    "clustered": CLUSTERED,
    "benign_drift": BENIGN_DRIFT,
    "identity_shift": IDENTITY_SHIFT,
    "refuse_then_comply": REFUSE_THEN_COMPLY,
    "noice": NOICE,
    "backdoor": BACKDOOR,
    "jailbreak": JAILBREAK,
    "padding": PADDING,
    "odd_prompts": ODD_PROMPTS,
    "short_answers": SHORT_ANSWERS,
    "long_answers": LONG_ANSWERS,
    "multi_turn": MULTI_TURN,
    "weight_aware": WEIGHT_AWARE,
}
"""Every attack by name."""

__all__ = ["ATTACKS", "Attack", "Edit", "Score", "Upload"]
