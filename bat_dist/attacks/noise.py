"""Random numbers by image: what an image draws depends on (seed, stream, its id, draw, position) and on nothing else.

So an attack makes the same moves on an image in whatever batch, order or process it finds it. A generator with a state
cannot do that; here each number is a hash of its address, computed for a whole batch in integer arithmetic on the
images' device. The hash is splitmix64's: position k of a sequence is `mix(key + k * GAMMA)` (Steele, Lea, Flood 2014,
"Fast splittable pseudorandom number generators"), taken twice: once for the draw, once for the position within it.
"""

from hashlib import blake2b
from math import pi, prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Keys = Int64[Tensor, " batch"]

_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # as the int64 of the same bits; products and sums wrap around
_DRAW = 0x632BE59BD9B4E019  # another odd number, so that draws and positions walk apart
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_BITS = 24  # of a number: float32 holds them exactly, so that both precisions draw the same


def image_keys(seed: int, stream: str, ids: Int64[Tensor, " batch"]) -> Keys:
    """Where each image's random numbers lie.

    ids: numbers that name the images, the same in every batch. stream: who draws, such as "apgd-t 3".
    """
    root = int.from_bytes(blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "little", signed=True)
    return _mixed(root + ids * _GAMMA)


def uniform(keys: Keys, draw: int, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "batch ..."]:
    """Numbers in [0, 1), multiples of 2^-24; each draw 0, 1, 2, ... has numbers of its own."""
    positions = torch.arange(prod(shape), device=keys.device)
    numbers = _mixed(_keys_of_draw(keys, draw).unsqueeze(1) + positions.mul_(_GAMMA))
    return _shift(numbers, 64 - _BITS, out=numbers).to(dtype).mul_(2.0**-_BITS).view(-1, *shape)


def normal(keys: Keys, draw: int, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "batch ..."]:
    """Standard normal numbers, two from each two of `uniform` (Box and Muller 1958); none is further out than 5.8.

    Computed in float64, since float32 functions of a GPU differ from the CPU's in their last bits.
    """
    count = prod(shape)
    lengths, angles = uniform(keys, draw, 2, -(-count // 2), dtype=torch.float64).unbind(1)
    radius, angles = lengths.neg_().log1p_().mul_(-2).sqrt_(), angles * (2 * pi)
    found = torch.cat([radius * angles.cos(), radius * angles.sin()], dim=1)
    return found[:, :count].to(dtype).view(-1, *shape)


def later(keys: Keys, restart: int) -> Keys:
    """The keys of an attack's restart; those of restart 0 are the keys themselves."""
    return _keys_of_draw(keys, -restart) if restart else keys


def _keys_of_draw(keys: Keys, draw: int) -> Keys:
    """A key for each draw from each key."""
    offset = (draw * _DRAW + 2**63) % 2**64 - 2**63  # wraps around, as int64 arithmetic does
    return _mixed(keys + offset)


def _mixed(z: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """A bijection of 64 bits in which each input bit flips half of the output bits; overwrites its argument."""
    room = torch.empty_like(z)
    for bits, factor in zip((30, 27), _FACTORS, strict=True):
        z.bitwise_xor_(_shift(z, bits, out=room)).mul_(factor)
    return z.bitwise_xor_(_shift(z, 31, out=room))


def _shift(z: Int64[Tensor, "*shape"], bits: int, *, out: Tensor) -> Int64[Tensor, "*shape"]:
    """The bits moved to the right, with zeros from the left (>> of a signed number repeats its sign)."""
    return torch.bitwise_right_shift(z, bits, out=out).bitwise_and_((1 << (64 - bits)) - 1)
