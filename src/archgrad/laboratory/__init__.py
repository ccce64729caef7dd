"""The laboratory: bias, variance and cost of gradient estimators where the exact gradient is known."""

from archgrad.laboratory.bound import Gap, gap
from archgrad.laboratory.candidates import CANDIDATES, SWEEP, Family
from archgrad.laboratory.measuring import Candidate, Row, measure
from archgrad.laboratory.points import alphas
from archgrad.laboratory.study import Study, study

__all__ = ["CANDIDATES", "SWEEP", "Candidate", "Family", "Gap", "Row", "Study", "alphas", "gap", "measure", "study"]
