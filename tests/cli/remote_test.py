#!/usr/bin/env python3
"""pinhole plan of an address: the plan is that of the local file, and only headers are read."""

import base64
import http.server
import io
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time

from support import (BAD_INPUT, BUNDLED, GOLDEN, MODEL, OK, TOO_LARGE, Case, environment, main,
                     pinhole, read)

MMPROJ = os.path.join(BUNDLED, "mmproj-pinhole-mini-f16.gguf")
FIRST_BYTES = 1 << 20  # of the first request


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder. What it does wrong stands first in the path: /404/model.gguf."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.send(body)

    def send(self, body):
        # In small pieces, so that what is counted is what the other side took.
        for begin in range(0, len(body), 1 << 14):
            piece = body[begin:begin + (1 << 14)]
            self.server.sent += len(piece)  # before: the other side may act on it at once
            self.wfile.write(piece)

    def handle(self):
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the other side had enough

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        path = self.path.split("?")[0]
        if path.startswith("http://"):  # asked as a proxy
            path = "/" + path.split("/", 3)[3]
        way, _, name = path[1:].partition("/")
        if way.isdigit():
            return self.answer(int(way), b"refused", **server.headers)
        if way == "redirect":
            return self.answer(302, Location=f"{server.target}/{name}")
        if way == "loop":
            return self.answer(302, Location=self.path)
        if way == "page":
            return self.answer(200, b"<!doctype html>", Content_Type="text/html; charset=utf-8")
        if not name:
            name = way
        try:
            size = os.path.getsize(os.path.join(server.folder, name))
        except OSError:
            return self.answer(404, b"not here")
        with open(os.path.join(server.folder, name), "rb") as file:
            begin, end = (int(text) for text in self.headers["Range"][6:].split("-"))
            end = min(end + 1, size)
            if way == "whole":
                return self.answer(200, file.read())
            if way == "endless":
                return self.answer(200, file.read(), Content_Length=None, Connection="close")
            if size == 0:
                return self.answer(416, Content_Range="bytes */0")
            file.seek(begin)
            body = file.read(end - begin)
            if way == "cut":
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.send(body[:len(body) // 2])
                self.close_connection = True
                return None
            ranges = {"shifted": f"bytes {begin + 1}-{end}/{size}", "star": f"bytes 0-{end - 1}/*",
                      "short": f"bytes {begin}-{end - 2}/{size}", "none": None,
                      "noise": "bytes 1-2-3", "giant": f"bytes {begin}-{end - 1}/{1 << 62}",
                      "beyond": f"bytes {begin}-{end - 1}/99999999999999999999999",
                      "grows": f"bytes {begin}-{end - 1}/{size + begin}"}
            self.answer(206, body, Content_Range=ranges.get(
                way, f"bytes {begin}-{end - 1}/{size}"))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.folder, self.sent, self.requests, self.headers = folder, 0, [], {}
        self.target = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up, also in the handshake

    def stop(self):
        self.shutdown()
        self.server_close()


def string(text):
    return struct.pack("<Q", len(text)) + text


def write_split(path, source, parts):
    """Writes the GGUF `source` as `parts` files: all keys stand in the first, tensors follow."""
    data = read(source)
    num_tensors, num_keys = struct.unpack("<QQ", data[8:24])
    cursor = io.BytesIO(data)
    cursor.seek(24)

    def take(layout):
        values = struct.unpack("<" + layout, cursor.read(struct.calcsize("<" + layout)))
        return values if len(values) > 1 else values[0]

    def skip(kind):
        if kind == 8:
            cursor.seek(take("Q"), io.SEEK_CUR)
        elif kind == 9:
            element, count = take("IQ")
            for _ in range(count):
                skip(element)
        else:
            cursor.seek((1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[kind], io.SEEK_CUR)

    for _ in range(num_keys):
        skip(8)
        skip(take("I"))
    keys = data[24:cursor.tell()]
    rows = []
    for _ in range(num_tensors):
        begin = cursor.tell()
        skip(8)
        cursor.seek(8 * take("I") + 4, io.SEEK_CUR)
        rows.append((data[begin:cursor.tell()], take("Q")))
    first = -(-cursor.tell() // 32) * 32
    ends = [offset for _, offset in rows[1:]] + [len(data) - first]
    names = []
    for no in range(parts):
        mine = range(no * len(rows) // parts, (no + 1) * len(rows) // parts)
        split = b"".join(string(key) + struct.pack(layout, kind, value) for key, layout, kind, value
                         in ((b"split.no", "<IH", 2, no), (b"split.count", "<IH", 2, parts),
                             (b"split.tensors.count", "<Ii", 5, num_tensors)))
        base = rows[mine[0]][1]
        out = data[:8] + struct.pack("<QQ", len(mine), 3 + (num_keys if no == 0 else 0)) + split
        out += keys if no == 0 else b""
        for i in mine:
            out += rows[i][0] + struct.pack("<Q", rows[i][1] - base)
        out += b"\0" * (-len(out) % 32) + data[first + base:first + ends[mine[-1]]]
        names.append(f"{path}-{no + 1:05}-of-{parts:05}.gguf")
        with open(names[-1], "wb") as file:
            file.write(out)
    return names


class Remote(Case):
    def setUp(self):
        super().setUp()
        self.web = self.path("web")
        os.makedirs(self.web)
        self.server = Server(self.web)
        # The text model with no projector beside it.
        self.model = shutil.copyfile(MODEL, self.path(os.path.basename(MODEL)))

    def tearDown(self):
        self.server.stop()
        super().tearDown()

    def publish(self, source, name=None):
        name = name or os.path.basename(source)
        os.symlink(source, os.path.join(self.web, name))
        return name

    def env(self, **changes):
        # A proxy of the machine is not asked for 127.0.0.1.
        env = environment(**{"XDG_CACHE_HOME": self.folder, "no_proxy": "*", **changes})
        for name in ("http_proxy", "all_proxy", "ALL_PROXY", "NO_PROXY", "HF_TOKEN"):
            if name not in changes:
                env.pop(name, None)
        return env

    def plan(self, *args, **changes):
        run = pinhole("plan", "--json", "--ram", "64G", *args, env=self.env(**changes))
        self.assertEqual(run.code, OK, run)
        return json.loads(run.out)

    def same(self, url, path, *args, **changes):
        """The plans of both are the same but for their names and for speeds of the moment."""
        plans = [self.plan(model, *args, **changes) for model in (path, url)]
        for plan in plans:
            for key in ("path", "speed", "rates", "uncached_bytes"):
                plan.pop(key)
        self.assertEqual(*plans)

    def refused(self, *args, **options):
        return super().refused(*args, env=self.env(), **options)

    def test_the_plan_is_that_of_the_file(self):
        url = self.server.url(self.publish(MODEL))
        mmproj = self.server.url(self.publish(MMPROJ))
        self.same(url, MODEL, "--mmproj", MMPROJ)
        self.server.sent = 0
        self.server.requests.clear()
        self.same(url, MODEL, "--mmproj", mmproj)
        # A file here with its projector there, too: two headers, then these and the text's.
        self.assertEqual(len(self.server.requests), 3)
        self.assertEqual(self.server.sent, 3 * FIRST_BYTES)
        run = pinhole("plan", url, "--image", "none", env=self.env())
        self.assertEqual(run.code, OK, run)
        self.assertNotIn("network", run.err)  # no progress where there is no terminal

    def test_pictures_need_the_projector_s_address(self):
        url = self.server.url(self.publish(MODEL))
        self.publish(MMPROJ)
        self.refused("plan", url, names=["--mmproj", "--image none", url])

    def test_a_server_without_ranges_is_cut_off(self):
        path = self.write("web/big.gguf", read(MODEL))
        os.truncate(path, 200 << 20)
        self.same(self.server.url("whole/big.gguf"), path, "--image", "none")
        # What the two sockets hold was sent in vain.
        self.assertLess(self.server.sent, 32 << 20)
        self.refused("plan", self.server.url("endless/big.gguf"),
                     names=["does not serve parts", "size", "download"])

    def test_redirects(self):
        name = self.publish(MODEL)
        other = Server(self.web)
        self.server.target = other.url("x")[:-2]
        url = self.server.url("redirect/" + name)
        self.same(url.replace("//", "//user:secret@"), self.model, "--image", "none")
        self.assertEqual(other.sent, FIRST_BYTES)
        # The password is for the server that was named.
        sent = base64.b64encode(b"user:secret").decode()
        self.assertEqual(self.server.requests[0][1]["Authorization"], "Basic " + sent)
        self.assertNotIn("Authorization", other.requests[0][1])
        other.stop()
        self.refused("plan", self.server.url("loop/x.gguf"), names=["redirected more than"])
        for target in ("ftp://127.0.0.1/x", "file:///etc"):
            self.server.target = target
            self.refused("plan", url, names=["redirected", "not http", url])

    def test_secrets_are_not_shown(self):
        self.publish(MODEL)
        url = self.server.url("model.gguf?token=abc#part").replace("//", "//user:secret@")
        for way in ("404/", "401/", ""):
            run = self.refused("plan", url.replace("model.gguf", way + "model.gguf"),
                               names=self.server.url(way + "model.gguf"))
            self.assertNotRegex(run.err, "secret|abc")
        run = self.refused("plan", "http://user:secret@bad host/x.gguf?abc", names="http://")
        self.assertNotRegex(run.err, "secret|abc")
        url = url.replace("model.gguf", os.path.basename(MODEL))
        plan = self.plan(url, "--image", "none")
        self.assertEqual(plan["path"], self.server.url(os.path.basename(MODEL)))
        self.assertEqual(self.server.requests[-1][0], "/" + os.path.basename(MODEL) + "?token=abc")

    def test_refusals_of_the_server(self):
        for status, names in ((401, "HTTP 401"), (403, "HTTP 403"), (404, "no such file"),
                              (416, "HTTP 416"), (500, "later"), (503, "later"),
                              (418, "HTTP 418"), (204, "HTTP 204")):
            url = self.server.url(f"{status}/x.gguf")
            self.refused("plan", url, names=[url, names])
        self.server.headers = {"Retry_After": 17}
        self.refused("plan", self.server.url("429/x.gguf"), names=["429", "17 s"])
        self.refused("plan", self.server.url("page/blob/x.gguf"), names=["web page", "/resolve/"])

    def test_no_server(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.gguf"
            self.refused("plan", url, names=[url, "cannot connect"])
        self.refused("plan", "http://no-such-host.invalid/x.gguf", names=["not found"])

    def test_a_certificate_that_nobody_signed(self):
        if shutil.which("openssl") is None:
            self.skipTest("there is no openssl to make a certificate with")
        key, cert = self.path("key.pem"), self.path("cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "1", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        secure = Server(self.web, context)
        url = f"https://localhost:{secure.server_port}/{self.publish(MODEL)}"
        self.refused("plan", url, names=[url, "certificate is not trusted", "ca-certificates"])
        self.assertEqual(secure.requests, [])
        secure.stop()

    def test_answers_that_are_no_part_of_the_file(self):
        name = self.publish(MODEL)
        for way in ("shifted", "star", "short", "none", "noise", "beyond"):
            self.refused("plan", self.server.url(f"{way}/{name}"), names=["Content-Range", name])
        self.refused("plan", self.server.url("giant/" + name), code=TOO_LARGE, names=str(1 << 62))
        self.refused("plan", self.server.url("cut/" + name), names=["cut", "try again"])

    def test_files_that_are_no_gguf(self):
        for data, names in ((b"not a model" * 100, ["'not ", "expected 'GGUF'"]),
                            (b"", "empty"), (b"GG", "magic")):
            self.write("web/x.gguf", data)
            for way in ("", "whole/"):
                self.refused("plan", self.server.url(way + "x.gguf"), names=names)

    def header_with(self, value):
        return (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"key") + value)

    def test_hostile_headers_are_refused_early(self):
        # A string and arrays of more than the file holds, and of more than is read of a header.
        for value, size, names, code in (
                (struct.pack("<IQ", 8, 1 << 60), 4 << 20, "key 'key'", BAD_INPUT),
                (struct.pack("<IIQ", 9, 8, 1 << 60), 4 << 20, "elements", BAD_INPUT),
                (struct.pack("<IQ", 8, 1 << 30), 2 << 30, "limit", TOO_LARGE),
                (struct.pack("<IIQ", 9, 4, 1 << 28), 2 << 30, "limit", TOO_LARGE)):
            with open(self.path("web/x.gguf"), "wb") as out:
                out.write(self.header_with(value))
                out.truncate(size)
            self.server.sent = 0
            start = time.monotonic()
            self.refused("plan", self.server.url("x.gguf"), names=names, code=code)
            self.assertLess(time.monotonic() - start,
                            30 if os.environ.get("PINHOLE_SANITIZED") else 2)
            self.assertEqual(self.server.sent, FIRST_BYTES)

    def test_a_header_beyond_the_first_range(self):
        data = read(MODEL)
        # Three MiB of padding as the first key, so that the rest of the header lies behind it.
        pad = string(b"padding") + struct.pack("<IQ", 8, 3 << 20) + bytes(3 << 20)
        pad += string(b"more") + struct.pack("<IQ", 8, -(len(pad) + 24) % 32) + bytes(
            -(len(pad) + 24) % 32)
        num_keys = struct.unpack("<Q", data[16:24])[0]
        big = data[:16] + struct.pack("<Q", num_keys + 2) + pad + data[24:]
        path = self.write("web/long.gguf", big)
        self.same(self.server.url("long.gguf"), path, "--image", "none")
        ranges = [headers["Range"] for _, headers in self.server.requests]
        self.assertEqual(ranges[0], f"bytes=0-{FIRST_BYTES - 1}")
        for before, after in zip(ranges, ranges[1:]):  # each byte once
            self.assertEqual(int(before.split("-")[1]) + 1, int(after[6:].split("-")[0]))
        self.assertEqual(self.server.sent, int(ranges[-1].split("-")[1]) + 1)
        self.assertLessEqual(self.server.sent, 8 << 20)
        self.server.sent = 0
        self.same(self.server.url("whole/long.gguf"), path, "--image", "none")
        self.refused("plan", self.server.url("grows/long.gguf"), names=["now it has", "try again"])

    def test_split_models(self):
        paths = write_split(os.path.join(self.web, "m"), MODEL, 3)
        names = [os.path.basename(path) for path in paths]
        for no in (0, 2):
            self.same(self.server.url(names[no]) + "?download=true", paths[no], "--image", "none")
            self.assertEqual([path for path, _ in self.server.requests],
                             [f"/{name}?download=true" for name in names])
            self.server.requests.clear()
        whole, split = (self.plan(model, "--image", "none")
                        for model in (self.model, self.server.url(names[0])))
        self.assertEqual(split["weights"], whole["weights"])  # its headers are others
        os.remove(paths[1])
        self.refused("plan", self.server.url(names[0]), names=["no such file", names[1]])
        self.refused("plan", self.server.url("x-00001-of-99999.gguf"), code=TOO_LARGE, names="99999")

    def test_a_configuration(self):
        self.need_golden()
        config = os.path.join(GOLDEN, "footprint", "Qwen3-VL-2B-Instruct.config.json")
        shutil.copyfile(config, self.path("web/config.json"))
        url = self.server.url("config.json")
        plans = [self.plan(model, "--weights", "q4_k_m") for model in (config, url)]
        for key in ("parameters", "memory_bytes", "weights", "room", "from_config_only"):
            self.assertEqual(plans[0][key], plans[1][key])
        self.write("web/config.json", "[]")
        self.refused("plan", url, names=[url, "expected an object"])

    def test_a_proxy_is_asked(self):
        name = self.publish(MODEL)
        self.plan(f"http://models.invalid/{name}", "--image", "none", no_proxy="",
                  http_proxy=self.server.url("")[:-1])
        self.assertEqual(self.server.requests[0][0], f"http://models.invalid/{name}")

    def test_only_plan_reads_over_the_network(self):
        url = self.server.url(self.publish(MODEL))
        for args in (["ask", "-m", url, "question"], ["inspect", url], ["tokenize", "-m", url, "x"],
                     ["perf", "-m", url], ["ask", "-m", MODEL, "--mmproj", url, "question"]):
            self.refused(*args, names=[url, "is a URL", "only plan", "download it first"])
        self.assertEqual(self.server.requests, [])


if __name__ == "__main__":
    main()
