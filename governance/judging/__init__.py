"""Stage 4: a language model is asked whether an action fits its mission. It can only tighten what the rules allow."""

from governance.judging.consulting import consult
from governance.judging.endpoints import is_on, troubled
from governance.judging.types import Opinion

__all__ = ["Opinion", "consult", "is_on", "troubled"]
