"""Pages hold together: every tag closed, text escaped, nothing fetched from elsewhere, pictures that can be read."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pytest

from mastsam_ros.io import html_page
from mastsam_ros.viz import colors

VOID = {"meta", "img", "br"}


class Tags(HTMLParser):
    """Fails on a tag that is closed out of turn; collects texts and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.addresses += [value for name, value in attributes if name in ("src", "href", "poster", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> while {self.open[-3:]} are open"
        self.open.pop()

    def handle_data(self, data) -> None:
        self.texts.append(data)


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert not tags.open
    return tags


def test_a_page_of_everything_is_well_formed_and_self_contained() -> None:
    picture = np.full((24, 32, 3), 90, np.uint8)
    body = [
        html_page.tiles([("found", "12", "of 13")]),
        html_page.section(
            "A < B & C",
            "note",
            html_page.film_strip([(picture, "0 s"), (picture, "1 s")]),
            html_page.pair(html_page.picture(html_page.png(np.zeros((4, 4, 4), np.uint8)), "cloud")),
            html_page.video([picture] * 3, 5, "video"),
            html_page.timeline([html_page.TimelineRow("a<b", [1, 1, 2], "0.9")], [0.0, 0.5, 1.0]),
            html_page.details("more", html_page.figure_table(("name", "value"), [("x", "<script>")])),
        ),
    ]
    text = html_page.page("Title & more", "lead", body, "footer")
    tags = parsed(text)
    assert tags.addresses and all(address.startswith("data:") for address in tags.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "A < B & C" in tags.texts and "<script>" in tags.texts and "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_timeline_draws_a_bar_per_unbroken_run_in_the_ids_colour() -> None:
    seconds = [0.0, 1.0, 2.0, 3.0]
    text = html_page.timeline(
        [html_page.TimelineRow("cup", [7, 7, 0, -1]), html_page.TimelineRow("box", [9] * 4)], seconds
    )
    bars = re.findall(
        r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"[^>]*?(?:fill="rgb\(([\d,]+)\)"|class="(bed)")', text
    )
    assert len(bars) == 3, "id 7, no id, id 9; nothing where it is out of view"
    (x7, width7, color7, _), (_, width0, _, bed), (_, width9, color9, _) = bars
    assert color7 == ",".join(map(str, colors([7])[0])) and color9 == ",".join(map(str, colors([9])[0]))
    assert bed == "bed"
    assert float(width7) == pytest.approx(2 * float(width0), abs=0.2)
    assert float(width9) == pytest.approx(4 * float(width0), abs=0.2)
    assert "cup: id 7, 0.00 to 2.00 s" in text


def test_the_timeline_keeps_the_distance_of_dropped_frames() -> None:
    text = html_page.timeline([html_page.TimelineRow("cup", [1, 2, 3])], [0.0, 1.0, 4.0])
    first, second, _ = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', text))
    assert second == pytest.approx(3 * first, rel=0.01)


def test_videos_play_back_as_they_went_in() -> None:
    pictures = [np.full((48, 64, 3), (value, 60, 200 - value), np.uint8) for value in (20, 100, 180)]
    with av.open(io.BytesIO(html_page.mp4(pictures, 5))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        back = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(back) == 3
    for put, got in zip(pictures, back, strict=True):
        assert np.abs(put.astype(int) - got).mean() < 8


def test_pictures_keep_colour_order_and_transparency() -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[:4] = (250, 10, 20, 255)
    content = base64.b64decode(html_page.png(image).partition(",")[2])
    back = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert back[0, 0].tolist() == [20, 10, 250, 255] and back[7, 7, 3] == 0
