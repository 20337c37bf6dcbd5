"""One config class per command, in the file of its wing. The command line, the YAML keys and the docs are made from
these classes; a range stands beside the type of its option, and ``RunConfig`` checks it when a config is made.
"""

from holdfast.config.align import AlignConfig
from holdfast.config.audit import AuditConfig
from holdfast.config.base import Range, RunConfig, check_value, with_recipe
from holdfast.config.bench import BenchCompareConfig, BenchConfig
from holdfast.config.crosstask import AnalyseConfig, CrossTaskConfig, LabelConfig, PromptingConfig
from holdfast.config.names import from_keywords, our_flags, our_names
from holdfast.config.sensitivity import CheckConfig, CompareConfig, SensitivityConfig, VariantConfig, VariantsConfig
from holdfast.config.study import BestConfig, DemoConfig, ReportConfig, StudyConfig
from holdfast.config.training import TrainingConfig
from holdfast.config.tune import Normalizer, Preset, Truncation, TuneConfig, WeighConfig

__all__ = [
    "AlignConfig", "AnalyseConfig", "AuditConfig", "BenchCompareConfig", "BenchConfig", "BestConfig", "CheckConfig",
    "CompareConfig", "CrossTaskConfig", "DemoConfig", "LabelConfig", "Normalizer", "Preset", "PromptingConfig", "Range",
    "ReportConfig", "RunConfig", "SensitivityConfig", "StudyConfig", "TrainingConfig", "Truncation", "TuneConfig",
    "VariantConfig", "VariantsConfig", "WeighConfig", "check_value", "from_keywords", "our_flags", "our_names",
    "with_recipe",
]  # fmt: skip
