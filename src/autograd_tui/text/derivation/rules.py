"""The rules by operation name, a registry a phase: what a call computes, a node derives and an optimizer does."""

from __future__ import annotations

from autograd_tui.text.derivation.derivation import BackwardRule, ForwardRule
from autograd_tui.text.derivation.forward_rules import ELEMENTWISE_RULES, LAYER_RULES, MATRIX_RULES
from autograd_tui.text.derivation.optimizer_formulas import adam, rmsprop, sgd
from autograd_tui.text.derivation.optimizer_step import StepRule
from autograd_tui.text.derivation.rules_elementwise import ACTIVATION_RULES, ARITHMETIC_RULES, POWER_RULES
from autograd_tui.text.derivation.rules_loss import LOSS_RULES, REDUCTION_RULES
from autograd_tui.text.derivation.rules_matrix import ATTENTION_RULES, CONVOLUTION_RULES, PRODUCT_RULES
from autograd_tui.text.derivation.rules_norm import NORMALIZATION_RULES, POOLING_RULES
from autograd_tui.text.derivation.rules_shape import SHAPE_RULES

FORWARD_RULES: dict[str, ForwardRule] = {  # by the function's name, "add"
    **ELEMENTWISE_RULES,
    **LAYER_RULES,
    **MATRIX_RULES,
}
BACKWARD_RULES: dict[str, BackwardRule] = {  # by the node's name, "AddBackward0"
    **ACTIVATION_RULES,
    **ARITHMETIC_RULES,
    **ATTENTION_RULES,
    **CONVOLUTION_RULES,
    **LOSS_RULES,
    **NORMALIZATION_RULES,
    **POOLING_RULES,
    **POWER_RULES,
    **PRODUCT_RULES,
    **REDUCTION_RULES,
    **SHAPE_RULES,
}
STEP_RULES: dict[str, StepRule] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adam,
    "rmsprop": rmsprop,
}  # by the optimizer's name
