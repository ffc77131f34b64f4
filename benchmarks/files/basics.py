"""The matrix, first half: containers and codecs, frame rates, groups of pictures, pictures themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from benchmarks.files.cases import Case
from benchmarks.files.making import NTSC, Film
from benchmarks.files.pictures import TURNS

FAST = {"preset": "ultrafast"}
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
VPX = {"deadline": "realtime", "cpu-used": "8", "b": "500k"}
AV1 = {"preset": "10", "crf": "32", "svtav1-params": "lp=1"}  # its low delay can wait for ever
OPTIONS = {
    "libx264": FAST,
    "libx265": HEVC,
    "libvpx": VPX,
    "libvpx-vp9": {**VPX, "b": "300k"},
    "libsvtav1": AV1,
}
PIXELS = {
    "mjpeg": "yuvj420p",
    "prores_ks": "yuv422p10le",
    "rawvideo": "rgb24",
    "png": "rgb24",
    "qtrle": "rgb24",
    "gif": "rgb8",
    "apng": "rgb24",
    "cinepak": "rgb24",
    "msvideo1": "rgb555le",
    "zmbv": "bgr0",
    "flashsv": "bgr24",
    "utvideo": "yuv420p",
    "huffyuv": "yuv422p",
    "magicyuv": "gbrp",
    "svq1": "yuv410p",
    "dnxhd": "yuv422p",
    "cfhd": "yuv422p10le",
    "msrle": "pal8",
    "jpeg2000": "rgb24",
    "libwebp_anim": "bgra",
    "vc2": "yuv420p",
}
SHORT = {
    "h264": "libx264",
    "hevc": "libx265",
    "mpeg2": "mpeg2video",
    "mpeg1": "mpeg1video",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
    "raw": "rawvideo",
    "flv1": "flv",
    "av1": "libsvtav1",
    "webp": "libwebp_anim",
}
_CONTAINERS = {
    "mp4": "h264 hevc mpeg4 mpeg2 mpeg1 mjpeg vp9 png",
    "mov": "h264 hevc mpeg4 mpeg2 mjpeg prores raw qtrle png svq1 cinepak jpeg2000",
    "mkv": "h264 hevc mpeg4 mpeg2 mpeg1 vp8 vp9 mjpeg ffv1 prores snow",
    "webm": "vp8 vp9",
    "ts": "h264 hevc mpeg4 mpeg2 mpeg1",
    "m2ts": "h264 mpeg2",
    "avi": "h264 mpeg4 mpeg2 mjpeg ffv1 ffvhuff raw msmpeg4 msmpeg4v2 wmv2 cinepak msvideo1 zmbv utvideo vp8 "
    "magicyuv flv1",
    "flv": "h264 flv1 flashsv",
    "mpg": "mpeg1 mpeg2",
    "vob": "mpeg2",
    "ogg": "vp8",
    "gif": "gif",
    "apng": "apng",
    "wmv": "wmv1 wmv2 msmpeg4 mpeg4",
    "3gp": "h263 mpeg4 h264",
    "nut": "h264 ffv1 raw huffyuv utvideo png flv1",
    "mxf": "mpeg2 h264",
    "ivf": "vp8 vp9",
    "m4v": "mpeg4",
    "h264": "h264",
    "hevc": "hevc",
    "m2v": "mpeg2",
    "y4m": "wrapped",
    "rm": "rv10 rv20",
    "f4v": "h264",
}


def film(suffix: str, codec: str, **changes: object) -> Film:
    """Return a film of this codec, with a fast encoder's options."""
    name = SHORT.get(codec, codec)
    options = {**OPTIONS.get(name, {}), **changes.pop("options", {})}  # type: ignore[dict-item]
    plain = Film(suffix, name, pixels=PIXELS.get(name, "yuv420p"), options=options)
    return replace(plain, **changes)  # type: ignore[arg-type]


def containers() -> Iterator[Case]:
    """Every container with every codec that it holds."""
    for suffix, codecs in _CONTAINERS.items():
        for codec in codecs.split():
            made = film(suffix, codec)
            if codec == "h263":
                made = replace(made, width=128, height=96)
            if codec == "wrapped":
                made = replace(made, codec="wrapped_avframe", muxer="yuv4mpegpipe")
            if (suffix, codec) == ("avi", "raw"):
                made = replace(made, pixels="bgr24")  # AVI cannot say another order
            yield Case("containers", f"{suffix}-{codec}", made)
    pieces = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    for codec in ("h264", "hevc"):
        yield Case("containers", f"fragmented-{codec}", film("mp4", codec, mux=pieces))
    yield Case("containers", "front-h264", film("mp4", "h264", mux={"movflags": "faststart"}))
    for codec in ("h264", "vp9"):
        yield Case("containers", f"live-{codec}", film("mkv", codec, mux={"live": "1"}))


RATES = {
    "10": Fraction(10),
    "12": Fraction(12),
    "23.976": Fraction(24_000, 1001),
    "29.97": NTSC,
    "50": Fraction(50),
    "59.94": Fraction(60_000, 1001),
}
_LEGAL = ("23.976", "29.97", "50", "59.94")  # of MPEG-1 and MPEG-2


def rates() -> Iterator[Case]:
    """Frame rates, constant and variable."""
    pairs = (
        "mp4-h264 mkv-h264 mov-mpeg4 webm-vp8 webm-vp9 ts-h264 avi-mpeg4 flv-h264 ts-mpeg2 mpg-mpeg2 gif-gif"
    )
    for pair in pairs.split():
        suffix, codec = pair.split("-")
        for name, rate in RATES.items():
            if (codec == "mpeg2" and name not in _LEGAL) or (suffix == "gif" and rate > 25):
                continue
            yield Case("rates", f"{pair}-{name}", film(suffix, codec, rate=rate, seconds=2.5))
        if codec != "mpeg2":
            yield Case("rates", f"{pair}-variable", film(suffix, codec, variable=True))
    for pair in ("mkv-hevc", "mkv-mjpeg", "mkv-ffv1", "nut-h264", "wmv-wmv2"):
        suffix, codec = pair.split("-")
        yield Case("rates", f"{pair}-variable", film(suffix, codec, variable=True))


_H264 = {
    "intra": {"g": "1"},
    "long": {"g": "250", "bf": "0", "refs": "4"},
    "short": {"g": "5", "bf": "0"},
    "closed": {"g": "12", "bf": "2", "x264-params": "open-gop=0"},
    "open": {"g": "12", "bf": "2", "x264-params": "open-gop=1"},
    "refresh": {"bf": "0", "x264-params": "intra-refresh=1:keyint=12"},
    "pyramid": {"g": "24", "bf": "5", "x264-params": "b-pyramid=normal:ref=4:b-adapt=0"},
}
_HEVC = {
    "intra": "keyint=1",
    "open": "keyint=12:bframes=3:open-gop=1",
    "closed": "keyint=12:bframes=3:open-gop=0",
    "pyramid": "keyint=30:bframes=6:b-pyramid=1:open-gop=1:b-adapt=0:rc-lookahead=12",
}
_MPEG = {
    "intra": {"g": "1"},
    "closed": {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"},
    "open": {"g": "12", "bf": "2"},
    "long": {"g": "100", "bf": "0"},
}


def groups() -> Iterator[Case]:
    """Groups of pictures: where decoding can start, and in which order pictures are stored."""
    for suffix in ("mp4", "mov", "mkv", "ts", "avi", "flv", "nut"):
        for name, options in _H264.items():
            yield Case("groups", f"{suffix}-h264-{name}", film(suffix, "h264", options=options))
    for suffix in ("mp4", "mkv", "ts"):
        for name, params in _HEVC.items():
            options = {"x265-params": f"{HEVC['x265-params']}:{params}"}
            yield Case("groups", f"{suffix}-hevc-{name}", film(suffix, "hevc", options=options))
    for pair in ("ts-mpeg2", "mpg-mpeg2", "mkv-mpeg2", "avi-mpeg2", "mpg-mpeg1", "mp4-mpeg4", "avi-mpeg4"):
        suffix, codec = pair.split("-")
        for name, options in _MPEG.items():
            yield Case("groups", f"{pair}-{name}", film(suffix, codec, options=options))
    for suffix in ("webm", "mkv", "mp4", "ivf"):
        hidden = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "g": "40"}
        yield Case("groups", f"{suffix}-vp9-hidden", film(suffix, "vp9", options=hidden))
    yield Case("groups", "webm-vp8-hidden", film("webm", "vp8", options=hidden))
    for suffix in ("mp4", "mkv", "ts"):
        yield Case("groups", f"{suffix}-h264-film", film(suffix, "h264", seconds=40, options={"g": "250"}))


def av1() -> Iterator[Case]:
    """AV1, whose decoder takes its options only when it is opened."""
    for suffix in ("mp4", "mkv", "webm"):
        for name in ("12", "23.976", "29.97", "59.94"):
            yield Case("AV1", f"{suffix}-{name}", film(suffix, "av1", rate=RATES[name], seconds=2.5))
        for keys in ("1", "10", "250"):
            yield Case("AV1", f"{suffix}-key-{keys}", film(suffix, "av1", options={"g": keys}))
        yield Case("AV1", f"{suffix}-variable", film(suffix, "av1", variable=True))


_FORMATS = {
    "h264": "yuv422p yuv444p yuv420p10le yuv422p10le gray yuvj420p",
    "hevc": "yuv420p10le yuv422p10le yuv444p",
    "vp9": "yuv444p gbrp",
    "ffv1": "yuv410p yuva420p gray gray16le rgb48le bgra gbrp10le yuv420p10le yuv444p16le bgr0",
    "raw": "bgr24 gray yuv420p yuyv422 uyvy422 rgb565le bgra rgba",
    "png": "gray rgba rgb48be pal8 monob",
    "utvideo": "gbrp gbrap yuv444p",
    "mjpeg": "yuvj422p yuvj444p",
    "huffyuv": "yuv422p rgb24",
}


def pictures() -> Iterator[Case]:
    """Turned pictures, odd sizes, pixels that are not square, pixel formats, HDR, and other streams."""
    for pair in ("mp4-h264", "mov-mpeg4", "mkv-h264"):
        suffix, codec = pair.split("-")
        for turned in TURNS:
            if suffix != "mkv" or turned in ("90", "180", "270"):
                yield Case("turned", f"{pair}-{turned}", film(suffix, codec, turned=turned))
    for width, height in ((97, 65), (65, 64), (64, 65), (159, 61)):
        for pair, pixels in (("mkv-ffv1", "yuv420p"), ("mkv-vp9", "yuv420p"), ("mp4-h264", "yuv444p")):
            suffix, codec = pair.split("-")
            made = film(suffix, codec, width=width, height=height, pixels=pixels)
            yield Case("sizes", f"{pair}-{width}x{height}", made)
    yield Case("sizes", "avi-mjpeg-97x65", film("avi", "mjpeg", width=97, height=65))
    yield Case("sizes", "gif-gif-97x65", film("gif", "gif", width=97, height=65))
    for aspect in (Fraction(4, 3), Fraction(16, 11), Fraction(10, 11)):
        for pair in ("mp4-h264", "mkv-h264", "ts-h264", "mpg-mpeg2", "avi-mpeg4"):
            suffix, codec = pair.split("-")
            name = f"{pair}-{aspect.numerator}to{aspect.denominator}"
            yield Case("sizes", name, film(suffix, codec, aspect=aspect))
    for codec, formats in _FORMATS.items():
        for pixels in formats.split():
            suffix = {"png": "mov", "huffyuv": "avi", "utvideo": "nut", "raw": "nut"}.get(codec, "mkv")
            alpha = pixels in ("yuva420p", "bgra", "rgba", "gbrap")
            made = film(suffix, codec, pixels=pixels, see_through=alpha)
            yield Case("pixels", f"{suffix}-{codec}-{pixels}", made)
    clear = film("mov", "prores", pixels="yuva444p10le", options={"alpha_bits": "16"}, see_through=True)
    yield Case("pixels", "mov-prores-alpha", clear)
    yield Case("pixels", "mov-qtrle-argb", film("mov", "qtrle", pixels="argb", see_through=True))
    for light in ("pq", "hlg"):
        for pair in ("mp4-h264", "mkv-h264", "mp4-hevc", "ts-hevc"):
            suffix, codec = pair.split("-")
            made = film(suffix, codec, light=light, pixels="yuv420p10le", seconds=2)
            yield Case("pixels", f"{pair}-{light}", made)
    for suffix in ("mp4", "mkv", "mov"):
        for beside in ("cover before", "cover after", "small before", "small after", "still before"):
            if beside.startswith("cover") and suffix == "mov":
                continue  # no cover in its muxer
            name = f"{suffix}-{beside.replace(' ', '-')}"
            yield Case("streams", name, film(suffix, "h264", beside=beside))
