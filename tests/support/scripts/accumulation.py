"""Two batches a step, with a scaler, clipping, a learning rate that falls, and a step that the scaler leaves out."""

import torch
from bits import print_bits
from torch import nn

torch.manual_seed(1)
net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

for iteration in range(3):
    for micro_batch in range(2):
        images = torch.randn(8, 4)
        if iteration == 1 and micro_batch == 1:
            images[0, 0] = float("inf")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(images).float().pow(2).mean() / 2
        scaler.scale(loss).backward()
    scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    scaler.step(opt)
    scaler.update()
    opt.zero_grad(set_to_none=True)
    schedule.step()
    print(iteration, scaler.get_scale(), schedule.get_last_lr())
print_bits(net, scaler.get_scale())
