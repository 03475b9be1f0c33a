"""The chain rule of attention in one call: softmax(query @ key.T × scale) @ value."""

from __future__ import annotations

from autograd_tui.text.inside.backward.part import Part, Rule, whole
from autograd_tui.text.inside.backward.scene import Scene

WEIGHTS = "P = softmax(query @ key.T × scale)"
SLOPES = "D = P × (upstream @ value.T - its mean by P)"


def attention(scene: Scene) -> list[Part]:
    """Say in matrices what goes to query, key and value; no head is small enough to be worked by hand."""
    return [
        whole(scene, 0, f"query, with {WEIGHTS}, {SLOPES}: D @ key × scale", None),
        whole(scene, 1, "key: D.T @ query × scale", None),
        whole(scene, 2, "value: P.T @ upstream", None),
    ]


NODES = (
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0",
    "ScaledDotProductCudnnAttentionBackward0",
)
BACKWARD: dict[str, Rule] = dict.fromkeys(NODES, attention)
