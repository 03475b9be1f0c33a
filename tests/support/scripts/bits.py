"""For scripts of this folder: what they have come to, as one line that two runs can be compared by."""

import hashlib
import sys

import torch


def print_bits(*parts):
    """Print SHA-256 over parts (modules, tensors, or what has a repr) and the state of PyTorch's random numbers."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            tensors = part.state_dict()
        else:
            tensors = {"": part} if isinstance(part, torch.Tensor) else {}
            digest.update(b"" if tensors else repr(part).encode())
        for name, tensor in tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    sys.stdout.write(f"sha256 {digest.hexdigest()}\n")  # at once, where several processes share the stream
    sys.stdout.flush()
