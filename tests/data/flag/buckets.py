"""Prints buckets.txt: buckets by an implementation of MetroHash64 that shares nothing with ours.

Written from the description of the algorithm (J. Andrew Rogers, MetroHash64, 2015), with Python's unbounded integers, and checked against
the two vectors that its author published. Run: python3 tests/data/flag/buckets.py > tests/data/flag/buckets.txt
"""

MASK = (1 << 64) - 1
K = (0xD6D018F5, 0xA2AA033B, 0x62992FC1, 0x30BC5B29)


def rotate_right(value, count):
    return (value >> count | value << (64 - count)) & MASK


def metrohash64(data, seed):
    start = ((seed + K[2]) * K[0]) & MASK
    total, rest = start, data
    if len(data) >= 32:
        lanes = [start] * 4
        while len(rest) >= 32:
            for lane in range(4):
                word = int.from_bytes(rest[8 * lane : 8 * lane + 8], "little")
                lanes[lane] = (lanes[lane] + word * K[lane]) & MASK
                lanes[lane] = (rotate_right(lanes[lane], 29) + lanes[(lane + 2) % 4]) & MASK
            rest = rest[32:]

        def mix(a, b, c, factor, other):
            return (rotate_right(((lanes[a] + lanes[b]) * K[factor] + lanes[c]) & MASK, 37) * K[other]) & MASK

        lanes[2] ^= mix(0, 3, 1, 0, 1)
        lanes[3] ^= mix(1, 2, 0, 1, 0)
        lanes[0] ^= mix(0, 2, 3, 0, 1)
        lanes[1] ^= mix(1, 3, 2, 1, 0)
        total = (start + (lanes[0] ^ lanes[1])) & MASK
    if len(rest) >= 16:
        first, second = (int.from_bytes(rest[at : at + 8], "little") for at in (0, 8))
        one = rotate_right((total + first * K[2]) & MASK, 29) * K[3] & MASK
        two = rotate_right((total + second * K[2]) & MASK, 29) * K[3] & MASK
        one ^= (rotate_right(one * K[0] & MASK, 21) + two) & MASK
        two ^= (rotate_right(two * K[3] & MASK, 21) + one) & MASK
        total, rest = (total + two) & MASK, rest[16:]
    for size, turn in ((8, 55), (4, 26), (2, 48), (1, 37)):
        if len(rest) >= size:
            total = (total + int.from_bytes(rest[:size], "little") * K[3]) & MASK
            total ^= rotate_right(total, turn) * K[1] & MASK
            rest = rest[size:]
    total ^= rotate_right(total, 28)
    total = total * K[0] & MASK
    return total ^ rotate_right(total, 29)


def bucket(salt, key):
    return metrohash64(salt.encode() + b"\xff" + key.encode(), 0) % 1_000_000


PUBLISHED = b"012345678901234567890123456789012345678901234567890123456789012"
assert metrohash64(PUBLISHED, 0).to_bytes(8, "little").hex() == "6b753dae06704bad"
assert metrohash64(PUBLISHED, 1).to_bytes(8, "little").hex() == "3b0d481cf4b9b8df"

print("# salt, key, bucket; separated by tabs. By buckets.py, which is independent of our implementation. These never change.")
for salt in ("new_checkout_flow", "sales_email_v2_3_0", "layer-1", "a", "x" * 128, "grüße", "你好"):
    for key in ("user-1", "user-2", "42", "-7", "9007199254740991", "ada@example.com", "ü", "😊", "e3b0c442-98fc-1c14-9afb-f4c8996fb924", "k" * 200):
        print(salt, key, bucket(salt, key), sep="\t")
for length in range(1, 70):
    print("n", "n" * length, bucket("n", "n" * length), sep="\t")
