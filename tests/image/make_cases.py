#!/usr/bin/env python3
"""Writes tests/image/data: small pictures and the pixels that Pillow reads out of them.

usage: make_cases.py --files DIR    the pictures; needs Pillow, numpy and cjpeg
       make_cases.py --pixels DIR   cases.json and pixels.bin: what this Pillow (>= 11) reads
       make_cases.py --check DIR    compares them with this Pillow
       make_cases.py --resize DIR   resize.json and resize.bin; needs torch >= 2.1

Debian packages: python3-pil, python3-numpy, libjpeg-turbo-progs (cjpeg, for samplings, restart
intervals and arithmetic coding that Pillow does not write), python3-torch. PNGs are written here,
because Pillow writes few of the colour types and depths. The reference is what the processors are fed:
ImageOps.exif_transpose(Image.open(f)).convert("RGB"); `white` is the picture pasted on white.
cases.json: one entry per file: file, width, height, offset into pixels.bin (and of the one on
white, where the picture has alpha).
"""
import argparse
import io
import json
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, __version__ as pillow_version


def photo(width, height, channels, seed):
    """Smooth colour with edges and noise: every coding tool has something to do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        a, b, p = rng.uniform(0.05, 0.4, 2).tolist() + [rng.uniform(0, 6)]
        plane = 127 + 90 * np.sin(a * x + p) * np.cos(b * y) + rng.normal(0, 12, x.shape)
        plane[height // 3: height // 2 + 1, width // 4: width // 2 + 1] = rng.integers(0, 256)
        planes.append(plane)
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


# PNG -----------------------------------------------------------------------------------------

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """samples [height, width, channels] -> rows of packed bytes, big endian."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1).astype(np.uint32)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in flat]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in flat]
    per_byte = 8 // depth
    rows = []
    for row in flat:
        padded = np.concatenate([row, np.zeros(-len(row) % per_byte, np.uint32)])
        groups = padded.reshape(-1, per_byte)
        shifts = np.array([8 - depth * (i + 1) for i in range(per_byte)])
        rows.append((groups << shifts).sum(1).astype(np.uint8).tobytes())
    return rows


def filtered(rows, bytes_per_pixel):
    """Filter types in turn, so that all five occur."""
    out, previous = b"", None
    for i, row in enumerate(rows):
        kind = i % 5
        up = previous if previous is not None else bytes(len(row))
        line = bytearray()
        for j, value in enumerate(row):
            a = row[j - bytes_per_pixel] if j >= bytes_per_pixel else 0
            b, c = up[j], up[j - bytes_per_pixel] if j >= bytes_per_pixel else 0
            p = a + b - c
            paeth = min((a, b, c), key=lambda v: abs(p - v))
            line.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        out += bytes([kind]) + bytes(line)
        previous = row
    return out


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, color_type, depth, interlaced=False, palette=None, trns=None, before=b"", after=b""):
    height, width, channels = samples.shape
    bpp = max(1, channels * depth // 8)
    if interlaced:
        data = b""
        for x0, y0, dx, dy in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.shape[0] and part.shape[1]:
                data += filtered(pack_rows(part, depth), bpp)
    else:
        data = filtered(pack_rows(samples, depth), bpp)
    packed = zlib.compress(data, 9)
    half = len(packed) // 2
    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced)))
    out += before
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if trns is not None:
        out += chunk(b"tRNS", trns)
    out += chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return out + after + chunk(b"IEND", b"")


def exif(orientation, big_endian=False, kind=3):
    """A TIFF block of two entries; kind 3 is SHORT, 4 LONG."""
    e = ">" if big_endian else "<"
    value = struct.pack(e + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    return ((b"MM\0*" if big_endian else b"II*\0") + struct.pack(e + "IH", 8, 2)
            + struct.pack(e + "HHI", 0x0100, 3, 1) + struct.pack(e + "HH", 7, 0)
            + struct.pack(e + "HHI", 0x0112, kind, 1) + value + struct.pack(e + "I", 0))


def xmp(orientation, attribute=True):
    inner = f'tiff:Orientation="{orientation}"/>' if attribute else f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
    return ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description ' + inner + "</rdf:RDF></x:xmpmeta>").encode()


def png_cases():
    rng = np.random.default_rng(7)
    w, h = 23, 17
    for interlaced in (False, True):
        suffix = "_adam7" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            top = (1 << depth) - 1
            grey = rng.integers(0, top + 1, (h, w, 1))
            if depth == 16:
                grey[::2] %= 300  # Pillow clips 16-bit grey at 255: have values on both sides
            yield f"png_grey{depth}{suffix}.png", png(grey, 0, depth, interlaced)
            key = int(grey[3, 3, 0])
            yield f"png_grey{depth}_key{suffix}.png", png(grey, 0, depth, interlaced, trns=struct.pack(">H", key))
            if depth <= 8:
                colors = rng.integers(0, 256, (min(top + 1, 200), 3))
                index = rng.integers(0, len(colors), (h, w, 1))
                yield f"png_palette{depth}{suffix}.png", png(index, 3, depth, interlaced, colors)
                alpha = rng.integers(0, 256, len(colors) // 2 + 1).astype(np.uint8).tobytes()
                yield f"png_palette{depth}_alpha{suffix}.png", png(index, 3, depth, interlaced, colors, alpha)
            if depth >= 8:
                for color_type, channels, name in ((2, 3, "rgb"), (4, 2, "greyalpha"), (6, 4, "rgba")):
                    s = rng.integers(0, top + 1, (h, w, channels))
                    yield f"png_{name}{depth}{suffix}.png", png(s, color_type, depth, interlaced)
        s = photo(9, 5, 3, 3)
        yield f"png_rgb8_key{suffix}.png", png(s, 2, 8, interlaced, trns=struct.pack(">HHH", *s[2, 2].tolist()))
    for side in ((1, 1), (1, 40), (40, 1), (3, 2)):
        yield f"png_{side[0]}x{side[1]}.png", png(photo(*side, 3, 5), 2, 8)
        yield f"png_{side[0]}x{side[1]}_adam7.png", png(photo(*side, 3, 5), 2, 8, True)
    small = photo(11, 7, 3, 4)
    for orientation in range(1, 9):
        yield f"png_exif{orientation}.png", png(small, 2, 8, before=chunk(b"eXIf", exif(orientation, orientation % 2 == 0)))
    yield "png_exif_after_data.png", png(small, 2, 8, after=chunk(b"eXIf", exif(6)))
    text = b"XML:com.adobe.xmp\0\0\0\0\0"
    yield "png_xmp8.png", png(small, 2, 8, before=chunk(b"iTXt", text + xmp(8)))
    yield "png_exif1_xmp8.png", png(small, 2, 8, before=chunk(b"iTXt", text + xmp(8)) + chunk(b"eXIf", exif(1)))
    yield "png_gamma.png", png(small, 2, 8, before=chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sRGB", b"\1"))
    yield "png_sbit.png", png(small, 2, 8, before=chunk(b"sBIT", b"\5\6\5"))
    # APNG: the IDAT picture is the first frame.
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    frame = struct.pack(">IIIIIHHBB", 0, 11, 7, 0, 0, 1, 10, 0, 0)
    second = struct.pack(">IIIIIHHBB", 1, 11, 7, 0, 0, 1, 10, 0, 0)
    other = zlib.compress(filtered(pack_rows(255 - small, 8), 3))
    yield "png_animated.png", png(small, 2, 8, before=control + chunk(b"fcTL", frame),
                                  after=chunk(b"fcTL", second) + chunk(b"fdAT", struct.pack(">I", 2) + other))


# JPEG ----------------------------------------------------------------------------------------

def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def cjpeg(array, *options):
    height, width = array.shape[:2]
    grey = array.ndim == 2 or array.shape[2] == 1
    pnm = b"P%d %d %d 255\n" % (5 if grey else 6, width, height) + array.tobytes()
    return subprocess.run(["cjpeg", *options], input=pnm, stdout=subprocess.PIPE, check=True).stdout


def with_segment(jpeg, marker, data):
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def without_jfif(jpeg):
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + jpeg[4 + struct.unpack(">H", jpeg[4:6])[0]:]


def jpeg_cases():
    pic = photo(45, 35, 3, 11)
    image = Image.fromarray(pic)
    for name, sampling in (("444", "1x1"), ("422", "2x1"), ("420", "2x2"), ("440", "1x2"), ("411", "4x1"), ("410", "4x2")):
        yield f"jpeg_{name}.jpg", cjpeg(pic, "-quality", "85", "-sample", sampling)
        yield f"jpeg_{name}_progressive.jpg", cjpeg(pic, "-quality", "85", "-sample", sampling, "-progressive")
    yield "jpeg_q100.jpg", saved(image, "JPEG", quality=100, subsampling=0)
    yield "jpeg_q5.jpg", saved(image, "JPEG", quality=5)
    yield "jpeg_restart.jpg", cjpeg(pic, "-quality", "75", "-restart", "1")
    yield "jpeg_arithmetic.jpg", cjpeg(pic, "-quality", "75", "-arithmetic")
    yield "jpeg_grey.jpg", saved(image.convert("L"), "JPEG")
    yield "jpeg_grey_progressive.jpg", saved(image.convert("L"), "JPEG", progressive=True)
    yield "jpeg_rgb_adobe.jpg", cjpeg(pic, "-rgb", "-quality", "90")
    four = Image.fromarray(photo(45, 35, 4, 12), "CMYK")
    cmyk = saved(four, "JPEG", quality=90)
    yield "jpeg_cmyk.jpg", cmyk
    yield "jpeg_cmyk_progressive.jpg", saved(four, "JPEG", quality=90, progressive=True)
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    yield "jpeg_ycck.jpg", cmyk[:at] + b"\2" + cmyk[at + 1:]
    start = cmyk.index(b"\xff\xee")
    yield "jpeg_cmyk_plain.jpg", cmyk[:start] + cmyk[start + 16:]
    for width, height in ((1, 1), (8, 8), (9, 1), (1, 17), (16, 16), (33, 2)):
        yield f"jpeg_{width}x{height}.jpg", cjpeg(photo(width, height, 3, width), "-quality", "80", "-sample", "2x2")
    small = cjpeg(photo(21, 13, 3, 13), "-quality", "90", "-sample", "2x2")
    for orientation in range(1, 9):
        data = b"Exif\0\0" + exif(orientation, orientation % 2 == 1, 3 if orientation < 7 else 4)
        yield f"jpeg_exif{orientation}.jpg", with_segment(small, 0xE1, data)
    yield "jpeg_exif0.jpg", with_segment(small, 0xE1, b"Exif\0\0" + exif(0))
    yield "jpeg_exif9.jpg", with_segment(small, 0xE1, b"Exif\0\0" + exif(9))
    space = b"http://ns.adobe.com/xap/1.0/\0"
    yield "jpeg_xmp6.jpg", with_segment(small, 0xE1, space + xmp(6))
    yield "jpeg_xmp5_element.jpg", with_segment(small, 0xE1, space + xmp(5, False))
    yield "jpeg_exif3_xmp6.jpg", with_segment(with_segment(small, 0xE1, space + xmp(6)), 0xE1, b"Exif\0\0" + exif(3))
    yield "jpeg_exif9_xmp6.jpg", with_segment(with_segment(small, 0xE1, space + xmp(6)), 0xE1, b"Exif\0\0" + exif(9))
    yield "jpeg_exif_cut.jpg", with_segment(small, 0xE1, b"Exif\0\0" + exif(6)[:20])
    yield "jpeg_trailing.jpg", small + b"anything may follow the end marker\xff\xd8\xff"
    yield "jpeg_padding.jpg", small[:2] + b"\xff" * 5 + small[2:]


# WebP ----------------------------------------------------------------------------------------

def webp_cases():
    image = Image.fromarray(photo(37, 29, 3, 21))
    alpha = Image.fromarray(photo(37, 29, 4, 22), "RGBA")
    yield "webp_lossy.webp", saved(image, "WEBP", quality=70)
    yield "webp_lossy_q1.webp", saved(image, "WEBP", quality=1)
    yield "webp_lossy_alpha.webp", saved(alpha, "WEBP", quality=80)
    yield "webp_lossless.webp", saved(image, "WEBP", lossless=True)
    yield "webp_lossless_alpha.webp", saved(alpha, "WEBP", lossless=True, exact=True)
    yield "webp_1x1.webp", saved(image.crop((0, 0, 1, 1)), "WEBP", lossless=True)
    yield "webp_17x1.webp", saved(image.crop((0, 0, 17, 1)), "WEBP", quality=90)
    for orientation in range(1, 9):
        yield f"webp_exif{orientation}.webp", saved(image.crop((0, 0, 19, 11)), "WEBP", lossless=True,
                                                    exif=b"Exif\0\0" + exif(orientation))
    yield "webp_xmp7.webp", saved(image.crop((0, 0, 19, 11)), "WEBP", lossless=True, xmp=xmp(7))
    frames = [Image.fromarray(photo(24, 18, 4, s), "RGBA") for s in (31, 32, 33)]
    yield "webp_animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    yield "webp_animated_lossy.webp", saved(frames[0].convert("RGB"), "WEBP", save_all=True,
                                            append_images=[f.convert("RGB") for f in frames[1:]])
    # The first frame covers a part of the canvas; lossless, and lossy with an alpha plane.
    for name, options in (("lossless", {"lossless": True, "exact": True}), ("lossy", {"quality": 80})):
        still = saved(Image.fromarray(photo(14, 8, 4, 34), "RGBA"), "WEBP", **options)
        at = still.index(b"ALPH" if b"ALPH" in still else b"VP8L")
        le24 = lambda v: struct.pack("<I", v)[:3]
        header = le24(5) + le24(3) + le24(13) + le24(7) + le24(100) + b"\0"
        frame = header + still[at:]
        body = (b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + le24(29) + le24(19)
                + b"ANIM" + struct.pack("<IIH", 6, 0xFF336699, 0)
                + b"ANMF" + struct.pack("<I", len(frame)) + frame)
        yield f"webp_animated_part_{name}.webp", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def expected(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    rgb = np.asarray(image.convert("RGB"))
    white = None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        if not image.mode.startswith("I"):
            # Pillow scales 2- and 4-bit grey to 0..255 but compares it with the key as stored.
            if image.mode == "L" and data[1:4] == b"PNG" and data[24] in (2, 4):
                image.info["transparency"] *= 255 // ((1 << data[24]) - 1)
            layer = image.convert("RGBA")
            canvas = Image.new("RGB", layer.size, (255, 255, 255))
            canvas.paste(layer, mask=layer.getchannel("A"))
            white = np.asarray(canvas)
    return rgb, white


def write_files(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for source in (png_cases, jpeg_cases, webp_cases):
        for name, data in source():
            (folder / name).write_bytes(data)


def write_pixels(folder):
    pixels, cases = b"", []
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png", ".webp")):
        rgb, white = expected(path.read_bytes())
        case = {"file": path.name, "width": rgb.shape[1], "height": rgb.shape[0], "offset": len(pixels)}
        pixels += rgb.tobytes()
        if white is not None:
            case["white_offset"] = len(pixels)
            pixels += white.tobytes()
        cases.append(case)
    (folder / "pixels.bin").write_bytes(pixels)
    lines = ",\n".join(json.dumps(c) for c in cases)
    (folder / "cases.json").write_text(f'{{"pillow": "{pillow_version}", "cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases,", sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def check(folder):
    pixels = (folder / "pixels.bin").read_bytes()
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    differing = 0
    for case in cases:
        rgb, white = expected((folder / case["file"]).read_bytes())
        for array, key in ((rgb, "offset"), (white, "white_offset")):
            if array is None or key not in case:
                continue
            old = np.frombuffer(pixels, np.uint8, array.size, case[key])
            if old.tobytes() != array.tobytes():
                differing += 1
                d = np.abs(old.astype(int) - array.reshape(-1).astype(int))
                print(case["file"], key, "max", d.max(), "values", (d > 0).sum())
    print(f"{len(cases)} cases, {differing} differ from Pillow {pillow_version}")


def resize_cases(folder):
    """torchvision's resize on uint8 tensors is this interpolate call; channels_last as it gets them."""
    import torch
    pixels, cases = b"", []
    sizes = [((40, 30), (28, 28)), ((40, 30), (60, 50)), ((7, 5), (64, 32)), ((1, 1), (28, 56)), ((100, 3), (56, 28)),
             ((3, 100), (28, 84)), ((64, 64), (64, 32)), ((64, 64), (32, 64)), ((33, 65), (32, 64)), ((150, 90), (28, 28)),
             ((90, 61), (91, 60)), ((2, 2), (3, 5)), ((64, 48), (1, 1)), ((57, 43), (112, 28))]
    for number, ((w, h), (tw, th)) in enumerate(sizes):
        rng = np.random.default_rng(100 + number)
        picture = photo(w, h, 3, 50 + number) if number % 2 else rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        if number % 3 == 0:
            picture = np.where(picture > 127, 255, 0).astype(np.uint8)  # overshoot of the bicubic filter
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
        picture_offset = len(pixels)
        pixels += picture.tobytes()
        for mode in ("bicubic", "bilinear"):
            out = torch.nn.functional.interpolate(tensor, (th, tw), mode=mode, antialias=True)
            result = out[0].permute(1, 2, 0).contiguous().numpy()
            cases.append({"width": w, "height": h, "out_width": tw, "out_height": th, "mode": mode,
                          "picture_offset": picture_offset, "offset": len(pixels)})
            pixels += result.tobytes()
    (folder / "resize.bin").write_bytes(pixels)
    lines = ",\n".join(json.dumps(c) for c in cases)
    (folder / "resize.json").write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
    print(len(cases), "resize cases,", len(pixels), "bytes")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
actions = {"files": write_files, "pixels": write_pixels, "check": check, "resize": resize_cases}
for action in actions:
    parser.add_argument(f"--{action}", type=Path, metavar="DIR")
arguments = parser.parse_args()
for action, function in actions.items():
    if getattr(arguments, action):
        function(getattr(arguments, action))
