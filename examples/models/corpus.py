"""The texts the models learn from, out of Debian packages: fetched with apt, unpacked, never installed.

All three are in the public domain; see README.md. Each reader gives plain paragraphs in ASCII.
"""
import gzip
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import unicodedata
import zlib

PACKAGES = ("r-cran-janeaustenr", "bible-kjv", "bible-kjv-text", "dict-devil")


def fetch(folder):
    """Unpacks PACKAGES below folder unless they are there."""
    folder = pathlib.Path(folder)
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    with tempfile.TemporaryDirectory() as debs:
        os.chmod(debs, 0o755)
        subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *PACKAGES], cwd=debs, check=True,
                       stdout=subprocess.DEVNULL)
        for deb in pathlib.Path(debs).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, part], check=True)
    part.rename(folder)
    return folder


def plain(text):
    """ASCII, one space between words, no marks of emphasis."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
    text = unicodedata.normalize("NFKD", text.replace("\u2014", "--")).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", re.sub(r"[_\[\]]", "", text)).strip()


def r_strings(data):
    """Every string of a serialized R object (format 2 or 3, XDR), in order: enough for vectors of text.

    A CHARSXP is its flags, whose low byte is 9, its length, its bytes ('R Internals', section Serialization Formats).
    """
    at, end = 0, len(data)
    while at + 8 <= end:
        flags, length = struct.unpack_from(">Ii", data, at)
        if flags & 0xff == 9 and flags >> 20 == 0 and -1 <= length <= end - at - 8:
            yield data[at + 8:at + 8 + max(length, 0)]
            at += 8 + max(length, 0)
        else:
            at += 1


def austen(folder):
    """Jane Austen's six novels: a list of paragraphs each. An R database is zlib streams, each behind its size."""
    data = next(folder.glob("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")).read_bytes()
    at, novels = 0, []
    while at < len(data):
        stream = zlib.decompressobj()
        content = stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)
        lines = [line.decode("utf-8", "replace") for line in r_strings(content)]
        if len(lines) < 1000:
            continue  # a list of titles
        paragraphs = [plain(" ".join(block.split("\n"))) for block in re.split(r"\n\s*\n", "\n".join(lines))]
        novels.append([p for p in paragraphs if len(p) > 20 and p != p.upper()])
    return novels


def bible(folder):
    """The King James Version: (book and chapter, verse) in order."""
    run = subprocess.run([folder / "usr/bin/bible", "-p", folder / "usr/lib", "-f", "gen1:1-rev22:21"], check=True,
                         stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return [(verse[1], plain(verse[2]))
            for verse in re.finditer(r"^(\w+?\d+):\d+ (.*)$", run.stdout.decode("latin-1"), re.M)]


def devil(folder):
    """The Devil's Dictionary: (word in lower case, definition), without the verses that illustrate."""
    with gzip.open(folder / "usr/share/dictd/devil.dict.dz", "rt", encoding="latin-1") as file:
        text = file.read()
    entries = []
    for block in re.split(r"\n\n(?=[A-Z][A-Z' -]+, )", text):
        entry = re.match(r"([A-Z][A-Z' -]+), (?:n|adj|v\.t|v\.i|v|adv|n\.pl|pp|x|interj)\. *(.*)", block, re.S)
        if not entry:
            continue
        kept = [p for p in re.split(r"\n\n+", entry[2]) if not p.startswith("    ")]
        definition = plain(kept[0]) if kept else ""
        if len(definition) > 25:
            entries.append((entry[1].lower(), definition))
    return entries
