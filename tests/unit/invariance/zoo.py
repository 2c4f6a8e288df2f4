"""Small networks that cover the tricky cases, each with the verdicts that are known by hand.

`ZOO` maps a name to a builder of (model, example inputs, expected); `expected` maps a parameter to
(status, granularity), or to one such pair per slice. What is not listed is judged by the numerical oracle alone.
"""

import zoo_attention
import zoo_convolutional
import zoo_dense
import zoo_language
import zoo_shifts
import zoo_vision
from zoo_parts import ZOO

__all__ = ["ZOO", "zoo_attention", "zoo_convolutional", "zoo_dense", "zoo_language", "zoo_shifts", "zoo_vision"]
