"""The numerical core: what an image is worth to a classifier. Arrays in, arrays out.

Letters, used alike in every file: n training points, m validation points, d features, K neighbours,
C classes. A *utility* v(S) scores a model trained on the coalition S of training points; the
*marginal* of i is v(S + i) - v(S); a *semivalue* is the mean of i's marginals, weighted by the size
of S. Shapley weighs all sizes alike.

    knn_shapley     values of the nearest-neighbour utility in closed form
    utilities       what a coalition is worth, one file a kind
    semivalues      weights by coalition size; values by enumeration
    samplers        rounds of weighted orders: unbiased estimates of all values at once
    sweeps          a block: its orders swept, weighed, accumulated
    moments         count, mean and spread of what was seen, and their merge
    intervals       how far a mean may be from the truth, whenever one looks
    stopping        when it is enough
    convergence     the aggregator: blocks in, values, intervals and the end out
    estimation      what is swept in which order, until when
"""

from dcai_ray.valuation.knn_shapley import knn_shapley
from dcai_ray.valuation.utilities import Orders, Utility

__all__ = ["Orders", "Utility", "knn_shapley"]
