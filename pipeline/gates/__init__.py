"""What a gate's end means, and what people read of its output. Pure: values in, values out."""

from pipeline.gates.output import OUTPUT_CHARACTERS, readable, tail
from pipeline.gates.verdict import PREPARING_STEPS, Judgement, judge

__all__ = ["OUTPUT_CHARACTERS", "PREPARING_STEPS", "Judgement", "judge", "readable", "tail"]
