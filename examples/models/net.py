"""The Llama architecture in torch, its LoRA, and the optimizer. Nothing here is special: llama.cpp computes the same."""
import math

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-5
ROPE_BASE = 10000.0


class Shape:
    def __init__(self, vocabulary, width=192, layers=5, heads=6, kv_heads=2, hidden=512, context=256):
        self.vocabulary, self.width, self.layers = vocabulary, width, layers
        self.heads, self.kv_heads, self.hidden, self.context = heads, kv_heads, hidden, context
        self.head = width // heads


class Linear(nn.Linear):
    """A matrix, with a LoRA beside it where one is trained."""
    rank = 0

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(inputs))

    def adapt(self, rank, scale):
        self.rank, self.scale = rank, scale
        self.weight.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, self.in_features) / math.sqrt(self.in_features))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank))

    def forward(self, x):
        y = functional.linear(x, self.weight)
        if self.rank:
            y = y + functional.linear(functional.linear(x, self.lora_a), self.lora_b) * self.scale
        return y


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight


def rotated(x, cosine, sine):
    """Rotary positions over neighbouring pairs, as llama.cpp turns them for this architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.attn_norm, self.ffn_norm = Norm(shape.width), Norm(shape.width)
        self.attn_q = Linear(shape.width, shape.heads * shape.head)
        self.attn_k = Linear(shape.width, shape.kv_heads * shape.head)
        self.attn_v = Linear(shape.width, shape.kv_heads * shape.head)
        self.attn_output = Linear(shape.heads * shape.head, shape.width)
        self.ffn_gate = Linear(shape.width, shape.hidden)
        self.ffn_up = Linear(shape.width, shape.hidden)
        self.ffn_down = Linear(shape.hidden, shape.width)
        for last in (self.attn_output, self.ffn_down):
            last.weight.data.mul_(1 / math.sqrt(2 * shape.layers))

    def forward(self, x, cosine, sine, mask):
        batch, length, _ = x.shape
        shape, h = self.shape, self.attn_norm(x)
        q = self.attn_q(h).view(batch, length, shape.heads, shape.head).transpose(1, 2)
        k = self.attn_k(h).view(batch, length, shape.kv_heads, shape.head).transpose(1, 2)
        v = self.attn_v(h).view(batch, length, shape.kv_heads, shape.head).transpose(1, 2)
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        repeat = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(shape.head) + mask, -1)
        h = (weights @ v).transpose(1, 2).reshape(batch, length, -1)
        x = x + self.attn_output(h)
        h = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.05)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        angles = torch.outer(torch.arange(shape.context).float(),
                             ROPE_BASE ** (-torch.arange(0, shape.head, 2).float() / shape.head))
        self.cosine, self.sine = angles.cos(), angles.sin()
        self.mask = torch.full((shape.context, shape.context), float("-inf")).triu(1)

    def forward(self, ids):
        length = ids.shape[1]
        x = self.token_embd[ids]
        for layer in self.blk:
            x = layer(x, self.cosine[:length], self.sine[:length], self.mask[:length, :length])
        return self.output_norm(x) @ self.token_embd.T

    def adapt(self, rank, scale):
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Linear):
                module.adapt(rank, scale)


def orthogonal(matrix, steps=5):
    """Newton-Schulz: the nearest orthogonal matrix, roughly. Coefficients of K. Jordan's 'Muon'."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


class Optimizer:
    """Muon for the layers' matrices, Adam for everything else; which learns more in few steps than Adam alone."""

    def __init__(self, matrices, others, matrix_rate, other_rate):
        self.matrices, self.matrix_rate = matrices, matrix_rate
        self.momentum = [torch.zeros_like(matrix) for matrix in matrices]
        self.adam = torch.optim.Adam(others, lr=other_rate, betas=(0.9, 0.98), eps=1e-9)
        self.other_rate = other_rate

    @torch.no_grad()
    def step(self, factor):
        for matrix, momentum in zip(self.matrices, self.momentum):
            momentum.mul_(0.95).add_(matrix.grad)
            update = orthogonal(matrix.grad + 0.95 * momentum)
            rate = self.matrix_rate * factor * math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            matrix.mul_(1 - rate * 0.1).add_(update, alpha=-rate)
            matrix.grad = None
        for group in self.adam.param_groups:
            group["lr"] = self.other_rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
