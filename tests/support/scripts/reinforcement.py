"""Policy gradients: many calls of the model, kept until an episode has ended, make one loss."""

import random

import torch
from bits import print_bits
from torch import nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine = nn.Linear(2, 2)
        self.saved_log_probs = []

    def forward(self, state):
        return self.affine(state).softmax(0)


torch.manual_seed(10)
random.seed(10)
policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)


def select_action(state):
    chances = Categorical(policy(torch.tensor(state)))
    action = chances.sample()
    policy.saved_log_probs.append(chances.log_prob(action))
    return action.item()


def finish_episode(reward):
    optimizer.zero_grad()
    policy_loss = -reward * torch.stack(policy.saved_log_probs).sum()
    policy_loss.backward()
    optimizer.step()
    del policy.saved_log_probs[:]


for episode in range(4):
    position, steps = 0.5, 0
    while 0.0 < position < 1.0:
        position += (select_action([position, 1.0]) - 0.5) / 2 + random.uniform(-0.1, 0.1)
        steps += 1
    finish_episode(1.0 if position >= 1.0 else -1.0)
    print(episode, steps)
print_bits(policy, random.getstate())
