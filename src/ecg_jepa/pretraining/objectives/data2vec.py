"""data2vec (Baevski et al. 2022) with the JEPA's masks and predictor; the target is the average of several layers."""

from ..._utils.settings import option, settings
from .jepa import Jepa, JepaRecipe


@settings
class Data2VecRecipe(JepaRecipe):
    """Settings of the JEPA with another default."""

    target_layers: int = option(8, "targets are the average of the last layers, each normalised, and normalised once more")


class Data2Vec(Jepa):
    """The JEPA with targets of several layers."""

    summary = (
        "pre-trained by predicting from visible patches the average of several layers of its own moving average (data2vec, "
        "Baevski et al. 2022)"
    )
