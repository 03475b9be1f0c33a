"""Scenarios that do what they should not, each with one line of its own in one place."""

from __future__ import annotations

from pathlib import Path

PLACES = ("top", "build", "batch", "forward", "loss", "metric")
SCENARIO = """
import os, random, signal, sys, threading, time, warnings
import numpy
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Bad(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Long(Exception):
    def __str__(self):
        return "word " * 200_000

def endless():
    endless()

{top}

class Model(nn.Linear):
    def forward(self, x):
        {forward}
        return super().forward(x)

def loss(prediction, target):
    {loss}
    return nn.functional.mse_loss(prediction, target)

def metric(prediction, target):
    {metric}
    return 1

@scenario("mine")
def build(options):
    {build}
    x = torch.rand(4, 2)
    def batch(i):
        {batch}
        return x, x[:, :1]
    return Parts(model=Model(2, 1), batch=batch, loss=loss, metrics=dict(one=metric))
"""


def text_with(code: str, place: str) -> str:
    """Give the text of a scenario that runs a line of code in one of PLACES."""
    return SCENARIO.format(**dict.fromkeys(PLACES, "pass") | {place: code})


def line_of(place: str) -> int:
    """Give the number of that line."""
    return 1 + text_with("#here", place).split("#here")[0].count("\n")


def write(folder: Path, code: str, place: str, *, name: str = "my_model.py") -> str:
    """Write such a scenario and give its path."""
    path = folder / name
    path.write_text(text_with(code, place), encoding="utf-8")
    return str(path)
