"""A byte-level BPE tokenizer as GPT-2 has it and llama.cpp reads it ('gpt2', pre-tokenizer 'gpt-2'). Any bytes come back exactly."""
import collections
import heapq
import re

SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>")
BEGIN, END, USER, ASSISTANT = range(len(SPECIAL))
CONTROL, NORMAL = 3, 1  # llama.cpp's types of tokens

WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_names():
    """GPT-2's printable character for each byte: itself, or one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xa1, 0xad), *range(0xae, 0x100)]
    names, more = {}, 256
    for byte in range(256):
        if byte in printable:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(more)
            more += 1
    return names


NAMES = byte_names()


def spelled(word):
    return "".join(NAMES[byte] for byte in word.encode())


def learn(texts, merges_wanted):
    """The merges, most frequent pair first; ties go to the pair that sorts first, so that every run finds the same."""
    counts = collections.Counter()
    for text in texts:
        counts.update(WORDS.findall(text))
    words = [(list(spelled(word)), count) for word, count in sorted(counts.items())]
    pairs, places = collections.Counter(), collections.defaultdict(set)
    for index, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += count
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < merges_wanted:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        merges.append(pair)
        changed = set()
        for index in sorted(places.pop(pair)):
            symbols, times = words[index]
            for old in zip(symbols, symbols[1:]):
                pairs[old] -= times
            at = 0
            while at < len(symbols) - 1:
                if (symbols[at], symbols[at + 1]) == pair:
                    symbols[at:at + 2] = [pair[0] + pair[1]]
                at += 1
            for new in zip(symbols, symbols[1:]):
                pairs[new] += times
                places[new].add(index)
                changed.add(new)
        for new in sorted(changed):
            if pairs[new] > 0:
                heapq.heappush(heap, (-pairs[new], new))
    return merges


class Tokenizer:
    def __init__(self, merges):
        self.merges = merges
        self.tokens = list(SPECIAL) + [NAMES[b] for b in range(256)] + [a + b for a, b in merges]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens)
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.bytes = {name: byte for byte, name in NAMES.items()}
        self.known = {}

    def word(self, word):
        if word not in self.known:
            symbols = list(spelled(word))
            while len(symbols) > 1:
                rank, at = min((self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(zip(symbols, symbols[1:])))
                if rank == 1 << 30:
                    break
                symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
            self.known[word] = [self.ids[symbol] for symbol in symbols]
        return self.known[word]

    def encode(self, text):
        return [i for word in WORDS.findall(text) for i in self.word(word)]

    def decode(self, ids):
        return bytes(self.bytes[c] for i in ids if i >= len(SPECIAL) for c in self.tokens[i]).decode("utf-8", "replace")
