"""Builds OCI image layouts, good and bad, out of plain bytes. Also for the fuzzers' seeds (test/fuzz/make_corpus.py)."""
import ctypes
import gzip
import hashlib
import io
import json
import pathlib
import platform
import tarfile

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def member(name, data=None, *, type=tarfile.REGTYPE, mode=0o644, target="", device=(0, 0)):
    """A tar member; without data and type it is an empty file."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = type, mode, target
    info.devmajor, info.devminor = device
    info.size = len(data or b"")
    return info, data


def folder(name):
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name, target):
    return member(name, type=tarfile.SYMTYPE, target=target)


def hard_link(name, target):
    return member(name, type=tarfile.LNKTYPE, target=target)


def tar(members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data) if data else None)
        size = file.offset
    return buffer.getvalue()[:size + 1024]  # without the padding to a tape's record


def zstd(data):
    library = ctypes.CDLL("libzstd.so.1")  # dpkg needs it, so each Debian has it
    library.ZSTD_compressBound.restype = library.ZSTD_compress.restype = ctypes.c_size_t
    room = library.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    packed = ctypes.create_string_buffer(room)
    size = library.ZSTD_compress(packed, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)), 3)
    assert 0 < size <= room
    return packed.raw[:size]


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """The files of a layout, by name. Layers are tar files as bytes; `change` may spoil a document before it is stored."""

    def __init__(self, layers, *, packed=True, change=lambda name, document: None, nested=False):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        pack = {True: lambda layer: gzip.compress(layer, mtime=0), "zstd": zstd, False: lambda layer: layer}[packed]
        blobs = [pack(layer) for layer in layers]
        config = self.document("config", change, {"architecture": ARCHITECTURE, "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": [digest(layer) for layer in layers]}})
        kind = "application/vnd.oci.image.layer.v1.tar" + {True: "+gzip", "zstd": "+zstd", False: ""}[packed]
        manifest = self.document("manifest", change, {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.entry(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.entry(blob, kind) for blob in blobs]})
        self.manifest = digest(manifest)
        entry = {**self.entry(manifest, "application/vnd.oci.image.manifest.v1+json"),
                 "platform": {"os": "linux", "architecture": ARCHITECTURE}}
        if nested:
            index = self.document("nested", change, {"schemaVersion": 2, "manifests": [entry]})
            self.index = digest(index)
            entry = self.entry(index, "application/vnd.oci.image.index.v1+json")
        index = {"schemaVersion": 2, "manifests": [entry]}
        change("index", index)
        self.files["index.json"] = json.dumps(index).encode()

    def document(self, name, change, document):
        change(name, document)
        return json.dumps(document).encode()

    def entry(self, data, kind):
        self.files["blobs/sha256/" + digest(data)[7:]] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def tar(self):
        return tar([member(name, data) for name, data in sorted(self.files.items())])

    def write(self, path):
        for name, data in self.files.items():
            file = pathlib.Path(path, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return path
