"""Known sources that a background method subtracts."""

from importlib import import_module
from typing import Any

from dl3flow.chain import Chain


def predict_known(chain: Chain) -> Any:
    """Expected counts of the sources that the chain's background subtracts, a function of a dataset; None if there are none."""
    if chain.background is None or chain.background.subtract is None:
        return None
    # by name, so that the digest of a reduction holds the code of models only where one is subtracted
    parse, predict = import_module("dl3flow.io.models_yaml"), import_module("dl3flow.fit.npred")
    models = parse.parse_models(chain.background.subtract, "subtract")
    return lambda dataset: predict.predict_counts(dataset, models)[0]
