"""A loop in a class, that runs forward and backward inside the optimizer's step, as some libraries do."""

import torch
from bits import print_bits
from torch import nn


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        self.schedule = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=0.5, total_iters=2)

    def training_step(self, batch):
        return self.model(batch).square().mean()

    def fit(self, batches):
        for batch in batches:

            def closure(batch=batch):
                self.optimizer.zero_grad()
                loss = self.training_step(batch)
                loss.backward()
                nn.utils.clip_grad_value_(self.model.parameters(), 0.1)
                return loss

            self.optimizer.step(closure)
            self.schedule.step()


torch.manual_seed(20)
trainer = Trainer(nn.Linear(3, 1), lr=0.05)
trainer.fit(torch.randn(3, 5, 3))
print_bits(trainer.model)
