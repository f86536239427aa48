"""The few layers the example models need, in plain numpy: forward, backward and Adam.

Written out instead of taken from a framework so that training needs nothing but Debian's numpy.
Everything is float64: the models are tiny, and rounding to FP32 happens once, at export.

A layer has forward(x) -> y, backward(dy) -> dx, and parameters: a list of [value, gradient]
pairs whose arrays are updated in place. backward() belongs to the latest forward().
"""
import numpy as np


def he_normal(rng, shape, fan_in):
    """Weights that keep the variance of activations through a ReLU (He et al., 2015)."""
    return rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)


class Dense:
    """y = x W + b with x [n, inputs] and W [inputs, outputs]."""

    def __init__(self, rng, inputs, outputs):
        self.weight = he_normal(rng, (inputs, outputs), inputs)
        self.bias = np.zeros(outputs)
        self.parameters = [[self.weight, np.zeros_like(self.weight)],
                           [self.bias, np.zeros_like(self.bias)]]

    def forward(self, x):
        self._x = x
        return x @ self.weight + self.bias

    def backward(self, dy):
        self.parameters[0][1][...] = self._x.T @ dy
        self.parameters[1][1][...] = dy.sum(axis=0)
        return dy @ self.weight.T


class Conv3x3:
    """Same-size 3x3 convolution: x [n, cin, h, w] -> [n, cout, h, w], weight [cout, cin, 3, 3].

    One matrix product over the gathered neighbourhoods, which is what makes numpy fast enough.
    """

    def __init__(self, rng, channels_in, channels_out):
        self.weight = he_normal(rng, (channels_out, channels_in, 3, 3), channels_in * 9)
        self.bias = np.zeros(channels_out)
        self.parameters = [[self.weight, np.zeros_like(self.weight)],
                           [self.bias, np.zeros_like(self.bias)]]

    def forward(self, x):
        n, cin, h, w = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        # [n, cin, h, w, 3, 3] -> one row per output pixel, in the order of the weight's axes.
        self._columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, cin * 9)
        self._shape = x.shape
        y = self._columns @ self.weight.reshape(len(self.weight), -1).T + self.bias
        return y.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, dy):
        n, cin, h, w = self._shape
        rows = dy.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        self.parameters[0][1][...] = (rows.T @ self._columns).reshape(self.weight.shape)
        self.parameters[1][1][...] = rows.sum(axis=0)
        columns = (rows @ self.weight.reshape(len(self.weight), -1)).reshape(n, h, w, cin, 3, 3)
        padded = np.zeros((n, cin, h + 2, w + 2))
        for i in range(3):
            for j in range(3):
                padded[:, :, i:i + h, j:j + w] += columns[..., i, j].transpose(0, 3, 1, 2)
        return padded[:, :, 1:-1, 1:-1]


class Relu:
    parameters = []

    def forward(self, x):
        self._alive = x > 0
        return x * self._alive

    def backward(self, dy):
        return dy * self._alive


class MaxPool2x2:
    """The largest of each 2x2 block; h and w must be even."""

    parameters = []

    def forward(self, x):
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        blocks = blocks.reshape(n, c, h // 2, w // 2, 4)
        self._shape = x.shape
        self._winner = blocks.argmax(axis=-1)
        return blocks.max(axis=-1)

    def backward(self, dy):
        n, c, h, w = self._shape
        # Only the first of equal maxima gets the gradient, as in ONNX's own MaxPool indices.
        blocks = np.where(np.arange(4) == self._winner[..., None], dy[..., None], 0.0)
        blocks = blocks.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
        return blocks.reshape(n, c, h, w)


class Flatten:
    parameters = []

    def forward(self, x):
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self._shape)


def forward(layers, x):
    for layer in layers:
        x = layer.forward(x)
    return x


def softmax_loss_gradient(logits, labels):
    """Gradient of the mean cross-entropy by the logits [n, classes]; labels [n] of class indices."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradient = shifted / shifted.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1.0
    return gradient / len(labels)


def sigmoid_loss_gradient(logits, labels):
    """Gradient of the mean binary cross-entropy by the logits [n, 1]; labels [n] of 0 and 1."""
    return (1.0 / (1.0 + np.exp(-logits)) - labels[:, None]) / len(labels)


def train(layers, loss_gradient, x, labels, rng, epochs, batch=32, rate=2e-3, decay=0.0):
    """Adam (Kingma & Ba, 2015) with the rate falling along a cosine to zero, so that the last
    epochs settle and the result hardly depends on when one stops; decay is decoupled (AdamW) and
    spares biases."""
    parameters = [pair for layer in layers for pair in layer.parameters]
    first = [np.zeros_like(value) for value, _ in parameters]
    second = [np.zeros_like(value) for value, _ in parameters]
    steps = epochs * -(-len(x) // batch)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            chosen = order[start:start + batch]
            gradient = loss_gradient(forward(layers, x[chosen]), labels[chosen])
            for layer in reversed(layers):
                gradient = layer.backward(gradient)
            now = rate * 0.5 * (1.0 + np.cos(np.pi * step / steps))
            step += 1
            for i, (value, slope) in enumerate(parameters):
                first[i] += 0.1 * (slope - first[i])
                second[i] += 0.001 * (slope * slope - second[i])
                mean = first[i] / (1.0 - 0.9 ** step)
                spread = np.sqrt(second[i] / (1.0 - 0.999 ** step)) + 1e-8
                if value.ndim > 1:
                    value -= now * decay * value
                value -= now * mean / spread
