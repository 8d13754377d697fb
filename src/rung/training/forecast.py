"""A rough forecast of bits per byte from the size of the network, the text and how often it is seen.

The form is that of scaling laws, L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022), with repeated text worth less
and less (Muennighoff et al. 2023, eq. 5: the value of a repetition decays with R* = 15). N counts the parameters in
matrices, the output matrix among them; D counts bytes of source text, so that the vocabulary does not matter.

The powers are Hoffmann's; the other constants were set by hand and are not yet fitted to runs. They serve to choose
between sizes. As predictions they were off by up to 0.36 bits per byte: 1.93 for 1.69 on a novel in 2.5 minutes, 1.92
for 2.06 and 1.68 for 2.04 on Tiny Shakespeare in 3 and 15 (RESULTS.md, 2026-11-22).
"""

from __future__ import annotations

import math

FLOOR = 0.90  # bits per byte that no network of this kind goes below on English prose
NETWORK_SCALE, NETWORK_POWER = 38.0, 0.34
TEXT_SCALE, TEXT_POWER = 49.0, 0.28
REPETITION_VALUE = 15.0


def worth_of_text(unique_bytes: float, seen_bytes: float) -> float:
    """How many bytes of fresh text `seen_bytes` are worth when there are only `unique_bytes` of it."""
    repetitions = max(0.0, seen_bytes / unique_bytes - 1)
    first_pass = min(seen_bytes, unique_bytes)
    return first_pass + unique_bytes * REPETITION_VALUE * (1 - math.exp(-repetitions / REPETITION_VALUE))


def forecast_bits_per_byte(matrix_parameters: int, unique_bytes: float, seen_bytes: float) -> float:
    """Bits per byte on held-out text of the same kind after training with a full learning-rate decay."""
    text = worth_of_text(unique_bytes, seen_bytes)
    network = float(matrix_parameters)
    return FLOOR + NETWORK_SCALE * math.pow(network, -NETWORK_POWER) + TEXT_SCALE * math.pow(text, -TEXT_POWER)
