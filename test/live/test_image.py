"""`spec.isolation.image`: an image made elsewhere as the root of a container; hostile ones are refused by name and field."""
import json
import os
import pathlib
import shutil
import tarfile

import pytest

from conftest import IDENTITY, ROOT, container_row, model_yaml, tenant_yaml, vector, wait_until
from oci import Layout, digest, folder as tar_folder, hard_link, link, member, tar

pytestmark = pytest.mark.skipif(not shutil.which("runc", path="/usr/sbin:/usr/bin"),
                                reason="no runc on this host (Debian: apt-get install runc)")


def items(server, kind, *name):
    found = json.loads(server.cli("get", kind, *name, "--tenant", "acme", "-o", "json").stdout)
    return found.get("items", [found])


def isolation(image):
    return {"level": "container", "image": str(image)}


BASE = tar([tar_folder("etc"), member("etc/os-release", b"NAME=elsewhere\n"), member("etc/shadow", b"secret\n", mode=0o600),
            member("etc/gone", b"x"), tar_folder("usr/bin"), link("bin", "usr/bin"),
            member("usr/bin/su", b"#!/bin/true\n", mode=0o4755), hard_link("usr/bin/sg", "usr/bin/su"),
            member("opt/old/a", b"a"), member("opt/old/b", b"b"), member("lib/libc.so.6", b"not a library at all"),
            member("etc/ld.so.preload", b"/lib/evil.so\n"), tar_folder("dev"), member("tmp/left", b"behind"),
            link("etc/alternatives", "/usr/bin")])
UPPER = tar([member("etc/.wh.gone"), member("opt/old/.wh..wh..opq"), member("opt/old/c", b"c"),
             member("etc/os-release", b"NAME=upper\n")])


def engine_digits(server, image):
    digits = ROOT / "examples/digits"
    server.apply(model_yaml("free", "acme", str(digits / "digits.onnx"), engine="onnx") +
                 model_yaml("walled", "acme", str(digits / "digits.onnx"), engine="onnx", isolation=isolation(image)))
    request = json.loads((digits / "request.json").read_text())
    return [server.infer(name, request["inputs"], server.acme) for name in ("free", "walled")]


def root_of(server, model):
    status, = [r["status"] for r in server.status()["replicas"] if r["status"]["model"] == model]
    return status, pathlib.Path("/proc", str(status["pid"]), "root")


def test_it_is_the_root_and_the_answers_are_the_same(contained, folder):
    image = Layout([BASE, UPPER])
    image.write(folder / "image")
    free, walled = engine_digits(contained, "image")
    assert free.status == walled.status == 200, walled.body
    assert free.json["outputs"] == walled.json["outputs"]
    status, root = root_of(contained, "walled")
    assert "of the model's image, sha256:" in status["wall"]
    assert (root / "etc/os-release").read_text() == "NAME=upper\n"
    assert not (root / "etc/gone").exists() and {p.name for p in (root / "opt/old").iterdir()} == {"c"}
    assert os.readlink(root / "bin") == "usr/bin" and os.readlink(root / "etc/alternatives") == "/usr/bin"
    assert (root / "usr/bin/su").read_bytes() == (root / "usr/bin/sg").read_bytes()
    assert not (root / "etc/ld.so.preload").exists() and not (root / "tmp/left").exists()
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        if inside.parts[0] in ("proc", "dev", "tmp"):
            continue
        info = path.lstat()
        assert info.st_uid == info.st_gid == 0 and info.st_mode & 0o7000 == 0, inside
        assert path.is_symlink() or info.st_mode & 0o222 == (0o200 if path.is_dir() else 0), inside
    mounts = {line.split()[4]: line.split()[5].split(",") for line in
              pathlib.Path("/proc", str(status["pid"]), "mountinfo").read_text().splitlines()}
    assert "ro" in mounts["/"]
    libraries = {line.split()[-1] for line in pathlib.Path("/proc", str(status["pid"]), "maps").read_text().splitlines()
                 if ".so" in line}
    assert libraries and all(p.startswith(("/bulkhead/", "/engine/")) for p in libraries), libraries
    version, = items(contained, "versions", "walled")
    assert version["status"]["image"]["digest"] == image.manifest
    # what was uploaded is gone; the model and the image's root are what is kept
    stored = {p.name for p in (contained.data / "store/artifacts").iterdir()}
    assert stored == {version["status"]["digest"], version["status"]["image"]["root"][7:]}


@pytest.mark.parametrize("form", ["folder", "tar", "plain layers", "zstd layers", "nested index"])
def test_each_form_gives_the_same_root(contained, folder, form):
    image = Layout([BASE, UPPER], packed={"plain layers": False, "zstd layers": "zstd"}.get(form, True), nested=form == "nested index")
    if form == "tar":
        (folder / "image").write_bytes(image.tar())
    else:
        image.write(folder / "image")
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation("image")))
    assert contained.infer("echo", vector(1, [1, 2, 3, 4]), contained.acme).status == 200
    _, root = root_of(contained, "echo")
    assert (root / "etc/os-release").read_text() == "NAME=upper\n"


def test_a_pinned_reference_is_checked(contained, folder):
    image = Layout([BASE], nested=True)
    image.write(folder / "image")
    wrong = digest(b"another")
    result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation(f"image@{wrong}")), check=False)
    assert result.returncode == 1
    assert f"Model acme/echo: spec.isolation.image: pinned to {wrong}, but the image's digest is {image.manifest}" in result.stderr
    assert not list((contained.data / "store/artifacts").iterdir())
    for pin in (image.manifest, image.index):
        contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation(f"image@{pin}")))
    assert contained.infer("echo", vector(1, [1, 2, 3, 4]), contained.acme).status == 200
    unchanged = contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation(f"image@{image.index}")))
    assert "unchanged (version 2)" in unchanged.stdout
    result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation("image@sha256:12")), check=False)
    assert "spec.isolation.image: expected PATH or PATH@sha256:" in result.stderr


def test_another_image_is_another_version_and_the_old_one_goes_with_its_model(contained, folder):
    Layout([BASE]).write(folder / "image")
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation("image")))
    shutil.rmtree(folder / "image")
    Layout([BASE, UPPER]).write(folder / "image")
    assert "(version 2)" in contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation("image"))).stdout
    assert "(version 3)" in contained.apply(model_yaml("echo", "acme", "echo.json", isolation={"level": "container"})).stdout
    assert len(list((contained.data / "store/artifacts").iterdir())) == 3
    contained.cli("delete", "model", "echo", "--tenant", "acme")
    assert not list((contained.data / "store/artifacts").iterdir())


HOSTILE = {
    "climbs": (member("../outside", b"x"), "no name inside of a root"),
    "absolute": (member("/etc/passwd", b"x"), "no name inside of a root"),
    "link out": (link("a", "../../etc"), "a link that leads out of the image"),
    "device": (member("null", type=tarfile.CHRTYPE, device=(1, 3)), "a device, a pipe"),
    "reserved": (member("bulkhead/program", b"x"), "/bulkhead and /engine are the server's"),
    "hard link out": (hard_link("a", "../../etc/shadow"), "a hard link to what is no file of the image"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_images_are_refused_by_name_and_field(contained, folder, what):
    entry, words = HOSTILE[what]
    Layout([tar([entry])]).write(folder / "image")
    result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation("image")), check=False)
    assert result.returncode == 1
    assert "Model acme/echo: spec.isolation.image: it cannot be used: layer 1: " in result.stderr and words in result.stderr
    assert not list((contained.data / "store/artifacts").iterdir())
    assert items(contained, "models") == []


def test_what_is_no_layout_and_what_is_spoilt(contained, folder):
    def words(path):
        result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation=isolation(path)), check=False)
        assert result.returncode == 1 and "spec.isolation.image" in result.stderr
        return result.stderr
    assert "no OCI image layout" in words("echo.json") or "not well-formed" in words("echo.json")
    assert "No such file" in words("nowhere")
    image = Layout([BASE])
    blob = max((name for name in image.files if name.startswith("blobs/")), key=lambda name: len(image.files[name]))
    image.files[blob] = image.files[blob][:-1] + b"?"
    image.write(folder / "spoilt")
    assert "does not have the digest that it is named by" in words("spoilt")
    def named(packing):
        image = Layout([BASE], change=lambda name, d: name == "manifest" and
                       d["layers"][0].update(mediaType="application/vnd.oci.image.layer.v1.tar+" + packing))
        image.write(folder / packing)
        return words(packing)
    assert "not whole zstd data" in named("zstd")
    assert "what is read is plain tar, gzip and zstd" in named("lz4")
    result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation={"level": "process", "image": "x"}), check=False)
    assert "spec.isolation.image: only workers of level container have an image" in result.stderr


def test_a_root_that_was_changed_on_disk_is_not_served(make_server, folder):
    server = make_server()
    wait_until(lambda: container_row(server)["state"] == "available", "level container")
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    Layout([BASE]).write(folder / "image")
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation=isolation("image")))
    key = server.key("acme")
    version, = items(server, "versions", "echo")
    path = server.data / "store/artifacts" / version["status"]["image"]["root"][7:]
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    answer = server.infer("echo", vector(1, [1, 2, 3, 4]), key)
    assert answer.status == 503 and "damaged" in answer.body.decode()
