#!/usr/bin/python3
"""Writes the seeds of those fuzz targets whose inputs are not text that a person would write by hand.

    test/fuzz/make_corpus.py        into test/fuzz/corpus, over what is there by the same names

Seeds of the other targets, and cases that a run found, lie beside them and are left alone.
"""
import pathlib
import re
import struct
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "test/live"))
import oci  # noqa: E402
KEYS = [f"bh_{c * 16}_{c.lower() * 43}" for c in "AB"]
FIT_SIZE, FIT_FDS = 0x80, 0x40


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def bus():
    """Every message from each of its senders to each of its receivers, and what is wrong with a packet."""
    header = (ROOT / "src/bus/message.h").read_text()
    roles = ["BUS_SUPERVISOR", "BUS_CONTROL", "BUS_GATEWAY", "BUS_WORKER", "BUS_INGEST"]
    rows = re.findall(r"^    X\((\w+), ([\w |]+), ([\w |]+), struct \w+, \d+\)", header, re.M)
    for number, (name, senders, receivers) in enumerate(rows, 1):
        for sender in senders.split(" | "):
            for receiver in receivers.split(" | "):
                who = bytes([roles.index(receiver), roles.index(sender)])
                packet = struct.pack("<II", number, 0)
                pair = f"{name.lower()}_{sender[4:].lower()}_{receiver[4:].lower()}"
                write("bus", pair, who + bytes([FIT_SIZE | FIT_FDS]) + packet)
                write("bus", pair + "_no_fds", who + bytes([FIT_SIZE]) + packet + bytes(64))
        write("bus", name.lower() + "_short", who + bytes([FIT_FDS]) + packet)
        write("bus", name.lower() + "_backwards", who[::-1] + bytes([FIT_SIZE | FIT_FDS]) + packet)
    for name, packet in {"empty": b"", "cut": b"\1\0\0", "type_0": bytes(8), "type_next": struct.pack("<II", len(rows) + 1, 0),
                         "type_large": b"\xff" * 8, "long": struct.pack("<II", 4, 0) + bytes(4000)}.items():
        for n_fds in (0, 1, 7):
            write("bus", f"{name}_{n_fds}_fds", bytes([0, 1, n_fds]) + packet)


def image():
    """Layers of container images, whole layouts, and the roots they become."""
    file, folder, link, hard = oci.member, oci.folder, oci.link, oci.hard_link
    long = "/".join(["a" * 100] * 4)
    layers = {
        "files": [folder("./etc"), file("./etc/hosts", b"x"), file("usr/bin/run", b"#!", mode=0o755), link("bin", "usr/bin")],
        "whiteouts": [file("a/b", b"1"), file("a/.wh.b"), file("a/c/d", b"2"), file("a/c/.wh..wh..opq"), file(".wh.gone")],
        "replaced": [file("a", b"1"), folder("a"), file("a/b", b"2"), file("a", b"3")],
        "hard-link": [file("a", b"1"), hard("b", "a"), hard("c", "./b")],
        "long-name": [file(long + "/x", b"1"), link("l", long)],
        "ignored": [file("dev/sda", b"x"), file("proc/1/mem", b"x"), file("tmp/x", b"x"), file("etc/ld.so.preload", b"x"),
                    oci.member("dev/null", type=tarfile.CHRTYPE, device=(1, 3))],
        "setuid": [file("su", b"x", mode=0o6755)],
        "climbs": [file("a/../../b", b"x")],
        "dot-dot": [file("..", b"x")],
        "absolute": [file("/etc/passwd", b"x")],
        "control-character": [file("a\nb", b"x")],
        "name-too-long": [file("a/" * 700 + "x", b"x")],
        "part-too-long": [file("a" * 300, b"x")],
        "link-out": [link("a/b", "../../etc")],
        "link-out-later": [link("a", "b/../../c")],
        "link-absolute": [link("a", "/b/../c")],
        "link-absolute-out": [link("a", "/../c")],
        "link-empty": [link("a", "")],
        "behind-a-link": [link("a", "/etc"), file("a/passwd", b"x")],
        "behind-a-file": [file("a", b"x"), file("a/b", b"x")],
        "hard-link-out": [hard("a", "../etc/shadow")],
        "hard-link-folder": [folder("a"), hard("b", "a")],
        "device": [oci.member("sda", type=tarfile.BLKTYPE, device=(8, 0))],
        "fifo": [oci.member("pipe", type=tarfile.FIFOTYPE)],
        "reserved": [file("bulkhead/program", b"x")],
        "reserved-link": [link("engine", "etc")],
        "whiteout-climbs": [file("a/.wh...", b"")],
        "whiteout-nothing": [file("a/.wh.", b"")],
        "empty": [],
    }
    for name, members in layers.items():
        write("image_tar", name, oci.tar(members))
    write("image_tar", "gnu-long-name", oci.tar(layers["long-name"], format=tarfile.GNU_FORMAT))
    whole = oci.tar(layers["files"])
    write("image_tar", "cut-header", whole[:300])
    write("image_tar", "cut-content", whole[:512 * 3 + 100])
    write("image_tar", "checksum", whole[:4] + b"!" + whole[5:])
    one = oci.tar(layers["setuid"])
    write("image_tar", "size-huge", resum(one, 124, b"77777777777\0"))
    write("image_tar", "size-base256", resum(one, 124, b"\x80" + b"\xff" * 11))
    write("image_tar", "size-no-number", resum(one, 124, b"12x45678901\0"))
    for name, records in {"pax-length": b"99 path=x\n", "pax-no-end": b"9 path=xy", "pax-size": b"16 size=1000000\n",
                          "pax-size-no-number": b"10 size=x\n", "pax-nothing": b"5 a=\n"}.items():
        head = tarfile.TarInfo("head")
        head.type, head.size = b"x", len(records)
        write("image_tar", name, oci.tar([(head, records), file("a", b"1")], format=tarfile.USTAR_FORMAT))
    base, upper = oci.tar(layers["files"]), oci.tar(layers["whiteouts"])

    def field(document, *path, value):
        def change(name, d):
            if name == document:
                for key in path[:-1]:
                    d = d[key]
                d[path[-1]] = value
        return change
    layouts = {
        "gzip": oci.Layout([base, upper]), "plain": oci.Layout([base], packed=False),
        "nested": oci.Layout([base], nested=True),
        "diff-id": oci.Layout([base], change=field("config", "rootfs", "diff_ids", 0, value="sha256:" + "0" * 64)),
        "diff-ids-few": oci.Layout([base, upper], change=field("config", "rootfs", "diff_ids", value=[oci.digest(base)])),
        "architecture": oci.Layout([base], change=field("config", "architecture", value="mips")),
        "layer-size": oci.Layout([base], change=field("manifest", "layers", 0, "size", value=1)),
        "layer-digest": oci.Layout([base], change=field("manifest", "layers", 0, "digest", value="sha256:" + "0" * 64)),
        "layer-sha512": oci.Layout([base], change=field("manifest", "layers", 0, "digest", value="sha512:" + "0" * 128)),
        "layer-zstd": oci.Layout([base], change=field("manifest", "layers", 0, "mediaType",
                                                      value="application/vnd.oci.image.layer.v1.tar+zstd")),
        "zstd": oci.Layout([base, upper], packed="zstd"),
        "layer-lz4": oci.Layout([base], change=field("manifest", "layers", 0, "mediaType",
                                                     value="application/vnd.oci.image.layer.v1.tar+lz4")),
        "layer-not-gzip": oci.Layout([base], packed=False, change=field("manifest", "layers", 0, "mediaType",
                                                                        value="application/vnd.oci.image.layer.v1.tar+gzip")),
        "config-size": oci.Layout([base], change=field("manifest", "config", "size", value=1)),
        "no-layers": oci.Layout([], change=lambda name, d: None),
        "two-images": oci.Layout([base], change=lambda name, d: name == "index" and d["manifests"].append(d["manifests"][0])),
        "no-image": oci.Layout([base], change=field("index", "manifests", value=[])),
        "nested-twice": oci.Layout([base], nested=True, change=lambda name, d: name == "nested" and d["manifests"][0].update(
            mediaType="application/vnd.oci.image.index.v1+json")),
        "layer-climbs": oci.Layout([oci.tar(layers["climbs"])]),
    }
    for name, layout in layouts.items():
        write("image", name + ".tar", layout.tar())
    write("image", "no-layout.tar", oci.tar([file("index.json", b"{}")]))
    write("image", "no-index.tar", oci.tar([file("oci-layout", b"{}")]))
    write("image", "index-no-json.tar", oci.tar([file("oci-layout", b"{}"), file("index.json", b"{")]))
    write("image", "cut.tar", layouts["gzip"].tar()[:513])
    rows = b"".join([struct.pack("<QQHHBBH", 128, 5, 1, 0, 1, 0, 0) + b"a", struct.pack("<QQHHBBH", 0, 0, 1, 0, 2, 0, 0) + b"b",
                     struct.pack("<QQHHBBH", 0, 0, 3, 1, 3, 0, 0) + b"b/ca"])
    head = b"bulkhead-root-01" + struct.pack("<QQQ", 3, 133, len(rows)) + bytes(88)
    write("image_root", "three", head + b"hello" + rows)
    write("image_root", "order", head + b"hello" + rows[25:50] + rows[:25] + rows[50:])
    write("image_root", "content-outside", head + b"hello" + rows.replace(struct.pack("<Q", 5), struct.pack("<Q", 6), 1))
    write("image_root", "climbs", head + b"hello" + rows.replace(b"b/c", b"../"))
    write("image_root", "cut", (head + b"hello" + rows)[:-1])
    write("image_root", "count", head.replace(struct.pack("<Q", 3), struct.pack("<Q", 4), 1) + b"hello" + rows)


def resum(tar, offset, value):
    """The tar file with a field of its first header replaced, and the header's checksum made good."""
    block = bytearray(tar[:512])
    block[offset:offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + tar[512:]


def api_key():
    a, b = KEYS
    requests = {
        "bearer": f"Authorization:Bearer {a}",
        "bearer_case": f"aUTHORIZATION:bEARER {a}",
        "bearer_blanks": f"Authorization:Bearer \t  {a}  ",
        "bearer_tab": f"Authorization:Bearer\t{a}",
        "bearer_none": "Authorization:Bearer ",
        "bearer_alone": f"Authorization:{a}",
        "basic": f"Authorization:Basic {a}",
        "own": f"X-API-Key:{b}",
        "own_blank": "X-API-Key:",
        "both": f"Authorization:Bearer {a}\nX-API-Key:{a}",
        "both_differ": f"Authorization:Bearer {a}\nX-API-Key:{b}",
        "both_one_empty": f"Authorization:\nX-API-Key:{b}",
        "twice": f"Authorization:Bearer {a}\nAuthorization:Bearer {a}",
        "twice_own": f"x-api-key:{a}\nx-API-key:{b}",
        "two_in_one": f"Authorization:Bearer {a}, Bearer {b}",
        "short": f"X-API-Key:{a[:-1]}",
        "long": f"X-API-Key:{a}a",
        "last_differs": f"X-API-Key:{a[:-1]}b",
        "id_unknown": f"X-API-Key:bh_{'C' * 16}{a[19:]}",
        "id_of_other": f"X-API-Key:bh_{'B' * 16}{a[19:]}",
        "prefix_differs": f"X-API-Key:xx_{a[3:]}",
        "not_ascii": f"X-API-Key:bh_{'ä' * 8}{a[19:]}",
        "huge": "X-API-Key:" + "a" * 4000,
        "kept": f"X-API-Key:{a}\n\nX-API-Key:{a}\n\nAuthorization:Bearer {a}",
        "kept_then_other": f"X-API-Key:{a}\n\nX-API-Key:{b}\n\nX-API-Key:{a}",
        "kept_then_none": f"X-API-Key:{a}\n\nHost:x\n\nX-API-Key:{a[:-1]}b",
        "kept_then_prefix": f"X-API-Key:{a}\n\nX-API-Key:{a[:40]}\n\nX-API-Key:{a}x",
    }
    for name, text in requests.items():
        write("api_key", name, text)


def oip_binary():
    def case(name, model, length, head=b"", tail=b""):
        head = head.encode() if isinstance(head, str) else head
        length = str(len(head)) if length is None else length
        write("oip_binary", name, bytes([model]) + length.encode() + b"\n" + head + tail)

    def tensor(name, datatype, shape, size=None, data=None):
        rest = f',"data":{data}' if size is None else f',"parameters":{{"binary_data_size":{size}}}'
        return f'{{"name":"{name}","datatype":"{datatype}","shape":{shape}{rest}}}'

    def text(*elements):
        return b"".join(struct.pack("<I", len(e)) + e for e in elements)

    fp32 = struct.pack("<8f", *range(8))
    one = '{"inputs":[' + tensor("x", "FP32", [2, 4], 32) + "]"
    case("header", 0, None, one + "}", fp32)
    case("all_binary", 0, None, one + ',"parameters":{"binary_data_output":true}}', fp32)
    case("output_binary", 0, None, one + ',"outputs":[{"name":"x","parameters":{"binary_data":true}}]}', fp32)
    case("output_not", 0, None, one + ',"parameters":{"binary_data_output":true},'
         '"outputs":[{"name":"x","parameters":{"binary_data":false}}]}', fp32)
    case("nan_as_json", 0, None, one + "}", struct.pack("<8f", *[float("nan")] * 8))
    case("tail_short", 0, None, one + "}", fp32[:-1])
    case("tail_long", 0, None, one + "}", fp32 + b"\0")
    case("no_header", 0, "-", '{"inputs":[' + tensor("x", "FP32", [1, 4], data=[1, 2, 3, 4]) + "]}")
    for number, length in enumerate(("", "-1", "+1", " 5", "5 ", "0x10", "1e1", "00", "99999", "18446744073709551616", "1")):
        case(f"length_{number}", 0, length, one + "}", fp32)
    case("length_into_json", 0, "20", one + "}", fp32)
    case("raw", 0, "0", b"", fp32[:16])
    case("raw_rows", 0, "0", b"", fp32)
    case("raw_nothing", 0, "0")
    case("raw_text", 1, "0", b"", b"hello")
    case("raw_two_open", 3, "0", b"", bytes(12))
    case("raw_one_open", 2, "0", b"", bytes(64))
    case("raw_odd", 2, "0", b"", bytes(65))
    case("raw_uint8", 4, "0", b"", bytes(range(256)))
    case("raw_scalar", 5, "0", b"", b"\1")
    case("raw_not_bool", 5, "0", b"", b"\2")
    case("raw_text_any", 6, "0", b"", b"\xff\xfe")
    case("raw_zero_dim", 7, "0", b"", bytes(8))
    case("raw_uncountable", 8, "0", b"", bytes(8))
    case("raw_two_inputs", 9, "0", b"", bytes(8))
    two = [tensor("x", "FP32", [2, 2], 16), tensor("y", "BYTES", [2], 11)]
    for name, inputs, tail in (("two", two, fp32[:16] + text(b"ab", b"c")),
                               ("two_swapped", two[::-1], text(b"ab", b"c") + fp32[:16]),
                               ("two_wrong_order", two, text(b"ab", b"c") + fp32[:16]),
                               ("two_rows_differ", [two[0], tensor("y", "BYTES", [1], 6)], fp32[:16] + text(b"ab"))):
        case(name, 9, None, '{"inputs":[' + ",".join(inputs) + '],"outputs":[{"name":"y","parameters":'
             '{"binary_data":true}},{"name":"x"}]}', tail)
    three = [tensor("x", "INT8", [3], 3), tensor("y", "BOOL", [2], data="[true,false]"), tensor("z", "BYTES", [1], 8)]
    for name, z in (("three", text(b"\xf0\x9f\x98\x80")), ("three_lying", struct.pack("<I", 5) + b"abcd")):
        case(name, 10, None, '{"id":"7","inputs":[' + ",".join(three) + '],"outputs":[{"name":"z"},{"name":"x",'
             '"parameters":{"binary_data":true}}]}', b"\x80\x00\x7f" + z)
    case("sizes_wrap", 9, None, '{"inputs":[' + tensor("x", "FP32", [1, 2], 2**64 - 8) + "," +
         tensor("y", "BYTES", [1], 16) + "]}", bytes(8))


def answer():
    item = ('{"kind":"Model","metadata":{"name":"echo","tenant":"acme","uid":"1"},"spec":{"engine":"identity",'
            '"resources":{"memory":"1Gi"}},"status":{"phase":"Ready","replicas":1,"version":1,"age":"2026-01-01T00:00:00Z",'
            '"pid":7,"digest":"0123456789abcdef","createdAt":"2026-01-01T00:00:00Z"}}')
    body = '{"items":[' + item + "]}"
    length = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    for kind in range(1, 8):
        write("answer", f"kind_{kind}", bytes([kind]) + length.encode())
    chunks = "".join(f"{len(body[i:i + 50]):x}\r\n{body[i:i + 50]}\r\n" for i in range(0, len(body), 50)) + "0\r\n\r\n"
    cases = {
        "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        "to_the_end": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body,
        "continue": "HTTP/1.1 100 Continue\r\n\r\n" + length,
        "only_continue": "HTTP/1.1 100 Continue\r\n\r\n",
        "error": 'HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\n\r\n{"error":"none","code":"not_found"}',
        "empty": 'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"items":[]}',
        "no_content": "HTTP/1.1 204 No Content\r\n\r\n",
        "cut": length[:-10],
        "not_http": "hello",
        "nothing": "",
        "terminal": 'HTTP/1.1 200 OK\r\n\r\n{"items":[{"metadata":{"name":"\\u001b[2J\\u009b1m\\u0007","tenant":"\\u007f"},'
                    '"status":{"phase":"a\\nb\\tc","reason":{"x":"\\u001b]0;t"}}}]}',
        "deep": "HTTP/1.1 200 OK\r\n\r\n" + '{"items":' + "[" * 200 + "]" * 200 + "}",
        "numbers": 'HTTP/1.1 200 OK\r\n\r\n{"items":[{"metadata":{"name":-1.5e300,"tenant":18446744073709551615},"spec":[],'
                   '"status":{"pid":-9223372036854775808,"replicas":true}}]}',
        "dates": 'HTTP/1.1 200 OK\r\n\r\n{"items":[{"status":{"age":"2026-13-99T99:99:99Z","createdAt":"9999999999-x"},'
                 '"metadata":{"createdAt":"2026-02-30"}}]}',
        "two_lengths": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "smuggled": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    }
    for name, text in cases.items():
        write("answer", name, b"\2" + text.encode())


def metrics_page():
    stats = struct.pack("<8Q4I", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    row = b"acme".ljust(64, b"\0") + b"echo".ljust(64, b"\0") + struct.pack("<8Q", *range(8))
    write("metrics_page", "row", stats + struct.pack("<II", 1, 0) + row)
    write("metrics_page", "names_without_end", stats + struct.pack("<II", 1, 0) + b"a" * 400)
    write("metrics_page", "names_to_escape", stats + struct.pack("<II", 1, 0) + b'"\\\n\r\t\x7f\x80\xff'.ljust(64, b'"') + b"\\" * 64)
    write("metrics_page", "count_huge", b"\xff" * 400)


def generation():
    def encoded(kind=1, flags=0, grammar_kind=0, numbers=(0.7, 1.0, 40, 0.05, 0.5, -0.5), top=0, prompt=b"", tokens=(),
                tools=b"", choice=b"", grammar=b"", stops=(), biases=()):
        head = struct.pack("<4B2Q2IQ2fI3f2BH6I", 1, kind, flags, grammar_kind, 1, 2, 0, 16, 3, *numbers, top, len(stops),
                           len(biases), len(prompt), len(tokens), len(tools), len(choice), len(grammar), 0)
        return (b"\0" + head + prompt + struct.pack(f"<{len(tokens)}i", *tokens) + tools + choice + grammar +
                b"".join(struct.pack("<H", len(s)) + s for s in stops) +
                b"".join(struct.pack("<if", *b) for b in biases))

    def event(kind=2, finish=0, id=b"", status=0, index=0, counts=(5, 2, 5, 1), name=b"", text=b"", tokens=(), values=()):
        listed = b"".join(tokens)
        return (b"\1" + struct.pack("<4Bi11I", 1, kind, finish, len(id), status, index, *counts, len(name), len(text),
                                    len(tokens), len(listed), len(values), len(values)) +
                id + name + text + listed + struct.pack(f"<{len(values)}f", *values))

    rival = struct.pack("<ifH", 9, -2.5, 1) + b"b"
    token = struct.pack("<ifHB", 7, -0.25, 1, 1) + b"a" + rival
    cases = {
        "completion": encoded(prompt="Grüße".encode()),
        "tokens": encoded(tokens=(1, 2, 3), flags=31),
        "tokens_negative": encoded(tokens=(1, -2)),
        "chat": encoded(kind=2, prompt=b'[{"role":"user","content":"hi"}]', tools=b"[]", choice=b"auto", stops=(b"\n", b"END"),
                        biases=((3, -100.0), (4, 5.0)), top=20, flags=1),
        "schema": encoded(kind=2, grammar_kind=2, grammar=b'{"type":"object"}', prompt=b"[]"),
        "gbnf": encoded(grammar_kind=1, grammar=b'root ::= "a"*'),
        "nan": encoded(numbers=(float("nan"), 1.0, 0, 0.0, 0.0, 0.0)),
        "event_text": event(text="ß".encode(), tokens=(token, token)),
        "event_tool": event(kind=4, id=b"call_1", name=b"weather", text=b'{"city":', index=1),
        "event_vector": event(kind=6, values=(0.5, -1.5)),
        "event_end": event(kind=7, finish=2),
        "event_error": event(kind=7, finish=4, status=-40, text=b"The prompt is too long."),
        "event_lies": event(counts=(1, 3, 2, 0)),
        "event_cut": event(tokens=(token[:-1],)),
    }
    for name, data in cases.items():
        write("generation", name, data)


def gguf_scan():
    def text(value):
        return struct.pack("<Q", len(value)) + value

    def tensor(rank=1, offset=0):
        return text(b"t") + struct.pack("<I", rank) + struct.pack("<Q", 4) * rank + struct.pack("<IQ", 0, offset)

    def file(keys=(), tensors=(tensor(),), version=3):
        head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
        return head + bytes(-len(head) % 32) + bytes(64)

    cases = {
        "smallest": file(),
        "keys": file([text(b"a") + struct.pack("<II", 4, 7), text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
                      text(b"l") + struct.pack("<IIQ", 9, 8, 2) + text(b"x") + text(b"y"),
                      text(b"n") + struct.pack("<IIQ", 9, 6, 3) + bytes(12)], [tensor(2), tensor(1, 32)], 2),
        "alignment": file([text(b"general.alignment") + struct.pack("<II", 4, 64)]),
        "split": file([text(b"split.count") + struct.pack("<IH", 2, 2)]),
        "array_huge": file([text(b"l") + struct.pack("<IIQ", 9, 10, 1 << 60)]),
        "offset_huge": file(tensors=[tensor(1, (1 << 64) - 32)]),
    }
    for name, data in cases.items():
        write("gguf_scan", name, data)


def lora_scan():
    def text(value):
        return struct.pack("<Q", len(value)) + value

    def key(name, value):
        return text(name) + struct.pack("<I", 8) + text(value)

    def file(keys, tensors):
        """tensors: (name, dimensions, number of the type, bytes)"""
        infos, data = b"", b""
        for name, dims, kind, content in tensors:
            infos += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
            infos += struct.pack("<IQ", kind, len(data))
            data += content + bytes(-len(content) % 32)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
        return head + bytes(-len(head) % 32) + data

    def pair(base, down, up):
        return struct.pack("<I", len(base)) + base + file(adapter, [(b"w.lora_a", *down), (b"w.lora_b", *up)])

    llama = key(b"general.architecture", b"llama")
    adapter = [llama, key(b"general.type", b"adapter"), key(b"adapter.type", b"lora")]
    base = file([llama], [(b"w", (8, 4), 0, bytes(128))])
    blocks = file([llama], [(b"w", (32, 4), 8, bytes(136))])
    cases = {
        "fits": pair(base, ((8, 2), 0, bytes(64)), ((2, 4), 0, bytes(32))),
        "halves": pair(base, ((8, 2), 1, bytes(32)), ((2, 4), 30, bytes(16))),
        "blocks": pair(blocks, ((32, 2), 8, bytes(68)), ((2, 4), 1, bytes(16))),
        "infinite": pair(base, ((8, 2), 0, struct.pack("<16f", *[float("inf")] * 16)), ((2, 4), 0, bytes(32))),
        "wide": pair(base, ((9, 2), 0, bytes(72)), ((2, 4), 0, bytes(32))),
        "short": pair(base, ((8, 2), 0, bytes(64)), ((2, 4), 0, b"")),
        "alone": struct.pack("<I", len(base)) + base + file(adapter, [(b"w.lora_a", (8, 2), 0, bytes(64))]),
        "no_lora": struct.pack("<I", len(base)) + base + base,
    }
    for name, data in cases.items():
        write("lora_scan", name, data)


for make in (bus, api_key, oip_binary, answer, metrics_page, generation, image, gguf_scan, lora_scan):
    make()
