"""The numerical core: what an image is worth to a classifier. Arrays in, arrays out.

Letters, used alike in every file: n training points, m validation points, d features, K neighbours,
C classes. A *utility* v(S) scores a model trained on the coalition S of training points; the
*marginal* of i is v(S + i) - v(S); a *semivalue* is the mean of i's marginals, weighted by the size
of S. Shapley weighs all sizes alike.
"""

from dcai_ray.valuation.knn_shapley import knn_shapley

__all__ = ["knn_shapley"]
