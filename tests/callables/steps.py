"""Steps of pipelines."""

import numpy as np


def same(a):
    return a


def add(b, c):
    return b + c


def scale(raw, factor):
    return raw * factor


def best(scores):
    return scores.argmax(axis=1)


def positive(x):
    return x[x > 0]


def total(h):
    return h.sum(dtype=np.float32)


def shout(words):
    return np.array([word.upper() + "!" for word in words], object)


def long_ones(loud):
    return loud[np.array([len(word) > 4 for word in loud], bool)]


def places(x):
    return np.flatnonzero(x).reshape(1, -1)


def doubled(places):
    return places * 2, np.int64(places.size * 2)


def address_of_output(x, h, made):
    h[...] = x
    made[...] = h.ctypes.data


def address_of_input(h, taken):
    taken[...] = h.ctypes.data


def refuses(y, z):
    if y.any():
        raise ValueError("no ones")
    z[...] = y
