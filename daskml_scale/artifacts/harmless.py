"""The types and functions that a model file may name beyond what skops lets through by itself.

Reviewed one by one: none runs code of the file's choosing when it is loaded. Most are parts of
scikit-learn's estimators: numbers, arrays, text and other estimators held together. ``Tree`` and its
like hold indices that are not checked again, so a crafted file can crash ``predict``; that is why a
bundle names the hash of its file. Left out on purpose: whatever reads files, keeps a callable of the
user's, or builds code (``scipy.stats`` distributions call ``exec``).

Functions are let through as references only, see ``trust``: a file may name ``f_classif``, it may not
call it. Names of versions that are not installed do no harm. This module is data.
"""

from __future__ import annotations


def _names(modules: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in modules.items() for name in names.split())


_METRICS = (
    "BrayCurtis Canberra Chebyshev Dice Euclidean Hamming Haversine Jaccard Mahalanobis Manhattan Minkowski "
    "RogersTanimoto RussellRao SEuclidean SokalMichener SokalSneath"
)

CLASSES = _names(
    {
        "daskml_scale.stages.search.estimators": "GridSearchCV RandomizedSearchCV",
        "numpy": "dtype number",
        "scipy.interpolate._bsplines": "BSpline",
        "scipy.sparse._coo": "coo_array coo_matrix",
        "scipy.sparse._csc": "csc_array csc_matrix",
        "scipy.sparse._csr": "csr_array csr_matrix",
        "sklearn._loss.loss": "HalfTweedieLoss HalfTweedieLossIdentity",
        "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
        "sklearn.cluster._bisect_k_means": "_BisectingTree",
        "sklearn.compose._column_transformer": "make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct Exponentiation ExpSineSquared "
        "Matern PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
        "sklearn.impute._iterative": "_ImputerTriplet",
        "sklearn.metrics._dist_metrics": " ".join(f"{n}Distance{bits}" for n in _METRICS.split() for bits in (32, 64)),
        "sklearn.metrics._scorer": "_CurveScorer _PassthroughScorer _Scorer",
        "sklearn.model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
        "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePOut "
        "LeavePGroupsOut PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold "
        "StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit _CVIterableWrapper",
        "sklearn.multiclass": "_ConstantPredictor",
        "sklearn.neighbors._ball_tree": "BallTree BallTree32 BallTree64",
        "sklearn.neighbors._kd_tree": "KDTree KDTree32 KDTree64",
        "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
        "sklearn.tree._tree": "Tree",
        "sklearn.utils._bunch": "Bunch",
        "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    }
)
"""Classes; each may be built from what the file holds."""

FUNCTIONS = _names(
    {
        "numpy": "asarray clip max mean median min nan_to_num round sum",
        "scipy._lib.array_api_compat.numpy._aliases": "asarray",
        "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
        "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
        "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
        "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score brier_score_loss d2_brier_score "
        "d2_log_loss_score f1_score jaccard_score log_loss matthews_corrcoef precision_score recall_score",
        "sklearn.metrics._ranking": "average_precision_score roc_auc_score top_k_accuracy_score",
        "sklearn.metrics._regression": "d2_absolute_error_score explained_variance_score max_error "
        "mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance mean_poisson_deviance "
        "mean_squared_error mean_squared_log_error median_absolute_error r2_score root_mean_squared_error "
        "root_mean_squared_log_error",
        "sklearn.metrics._scorer": "negative_likelihood_ratio positive_likelihood_ratio",
        "sklearn.metrics.cluster._supervised": "adjusted_mutual_info_score adjusted_rand_score completeness_score "
        "fowlkes_mallows_score homogeneity_score mutual_info_score normalized_mutual_info_score rand_score "
        "v_measure_score",
        "sklearn.metrics.pairwise": "additive_chi2_kernel chi2_kernel cosine_similarity laplacian_kernel linear_kernel "
        "polynomial_kernel rbf_kernel sigmoid_kernel",
    }
)
"""Functions that parameters of estimators name: scores, kernels, element-wise arithmetic."""
