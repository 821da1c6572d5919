"""The numerical core: what an image is worth to a classifier. Arrays in, arrays out.

Letters, used alike in every file: n training points, m validation points, d features, K neighbours,
C classes. A *utility* v(S) scores a model trained on the coalition S of training points; the
*marginal* of i is v(S + i) - v(S); a *semivalue* is the mean of i's marginals, weighted by the size
of S. Shapley weighs all sizes alike.

    arrays          what users pass as features, labels and ids, checked
    neighbours      training points ranked by distance; ties broken alike on every machine
    knn_shapley     values of the nearest-neighbour utility in closed form
    count_values    exact values of any utility of the K nearest labels, such as their majority vote
    utilities       what a coalition is worth, one file per kind
    semivalues      weights by coalition size; values by enumeration
    samplers        rounds of weighted orders: unbiased estimates of all values at once
    pilot           how many levels of orders pay, from two rounds
    plan            every choice that decides the blocks, but for the utility
    blocks          a block: rounds of one chain, their marginals weighed and accumulated
    moments         count, mean and spread of observations, and how they merge
    intervals       anytime-valid confidence intervals and e-values
    stopping        stopping rules
    aggregator      blocks in; values, intervals and the decision to stop out
    sampling        the loop over blocks in this process
"""

from dcai_ray.valuation.kernel_cache import use_writable_cache

use_writable_cache()  # before the modules that import numba

from dcai_ray.valuation.knn_shapley import knn_shapley  # noqa: E402
from dcai_ray.valuation.utilities import Orders, Utility  # noqa: E402

__all__ = ["Orders", "Utility", "knn_shapley"]
