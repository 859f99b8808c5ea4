"""The cleaning pass: what is accepted, what repeats what, and what is kept of it."""

import hashlib
import io
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images import probing as looking
from annotation_platform.images.cleaning import Accepted, KeepImage, ProbeImage
from annotation_platform.images.decoding import decode
from annotation_platform.images.signature import SIGNATURE
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.keys import image_key
from tests.core.images.conftest import POLICY, public_pairs, saved, scene


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "SECRET-CAMERA-OWNER"
    return tags


def signatures(store, round_id):
    return np.load(io.BytesIO(store.get(f"signatures/{round_id}.npy")), allow_pickle=False)


def test_each_defect_is_quarantined_with_its_reason_and_the_rest_goes_on(clean):
    sound = saved(scene(1), quality=90)
    middle = bytearray(sound)
    middle[len(middle) // 2 : len(middle) // 2 + 64] = np.random.default_rng(0).bytes(64)
    png = bytearray(saved(scene(2), "PNG"))
    png[-16] ^= 0xFF  # inside the last checksum of the pixels
    cleaned, _ = clean(
        {
            "black.png": saved(np.zeros((120, 160, 3), np.uint8), "PNG"),
            "blurred.png": saved(np.tile(np.uint8([[[90]]]), (120, 160, 3)), "PNG"),
            "bomb.png": saved(np.zeros((20, 20, 3), np.uint8), "PNG"),
            "checksum.png": bytes(png),
            "cut.jpg": sound[: len(sound) // 2],
            "empty.jpg": b"",
            "flipped.jpg": bytes(middle),
            "page.jpg": b"<html>sign in</html>",
            "sound.jpg": sound,
            "tail.jpg": sound[:-2],
        },
        CleaningPolicy(maximum_pixels=160 * 120, minimum_side=32),
    )
    outcomes = cleaned["outcome"].to_dict()
    assert outcomes.pop("sound.jpg") == "accepted"
    assert set(outcomes.values()) == {"quarantined"}
    reasons = cleaned["reason"].str.split(":").str[0].to_dict()
    assert reasons == {
        "black.png": "too dark",
        "blurred.png": "blurred",
        "bomb.png": "too small",
        "checksum.png": "damaged image",
        "cut.jpg": "damaged image",
        "empty.jpg": "empty file",
        "flipped.jpg": "damaged image",
        "page.jpg": "not an image",
        "sound.jpg": "",
        "tail.jpg": "damaged image",
    }


def test_a_header_without_dimensions_is_no_image(clean):
    # The tags of an image whose width and height are missing; Pillow answers with a TypeError.
    broken = b"II*\x00\x08\x00\x00\x00\x01\x00\x02\x01\x03\x00\x01\x00\x00\x00\x08\x00\x00\x00"
    cleaned, _ = clean({"broken.tif": broken + bytes(8), "sound.jpg": saved(scene(1))})
    assert cleaned["outcome"].to_dict() == {"broken.tif": "quarantined", "sound.jpg": "accepted"}


def test_too_many_pixels_are_refused_from_the_header(clean):
    policy = CleaningPolicy(maximum_pixels=160 * 120 - 1)
    cleaned, _ = clean({"large.jpg": saved(scene(1))}, policy)
    assert cleaned.loc["large.jpg", "reason"].startswith("too many pixels: 160x120")


def test_a_sound_image_keeps_its_pixels_and_coded_data_and_loses_its_metadata(clean):
    pixels = scene(3)
    plain = saved(pixels, quality=90)
    tagged = saved(pixels, quality=90, exif=exif(1), comment=b"SECRET-COMMENT")
    cleaned, store = clean({"a.jpg": tagged + b"SECRET-TRAILER"})
    row = cleaned.loc["a.jpg"]
    stored = store.get(image_key(row["image_id"], "jpg"))
    assert (row["outcome"], row["flags"]) == ("accepted", "trailing_data,metadata_cut")
    assert b"SECRET" not in stored
    assert (decode(stored) == decode(plain)).all()
    scan = plain[plain.index(b"\xff\xda") :]
    assert stored.endswith(scan)
    assert hashlib.md5(stored).hexdigest() == row["stored_md5"]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied_once(clean, orientation):
    upright = scene(4)
    transposed = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    turned = np.asarray(Image.fromarray(upright).transpose(Image.Transpose(transposed)))
    cleaned, store = clean({"a.png": saved(turned, "PNG", exif=exif(orientation))})
    row = cleaned.loc["a.png"]
    assert (row["width"], row["height"]) == (160, 120)
    assert (decode(store.get(image_key(row["image_id"], "png"))) == upright).all()
    assert "rotated" in row["flags"]


def test_other_kinds_become_rgb_by_a_stated_rule(clean):
    grey16 = (np.linspace(0, 65535, 160 * 120).reshape(120, 160)).astype(np.uint16)
    grey16 += np.random.default_rng(0).integers(0, 3000, grey16.shape).astype(np.uint16) // 2
    clear = np.dstack([scene(5), np.zeros((120, 160), np.uint8)])
    clear[:, :80, 3] = 255
    cleaned, store = clean(
        {
            "clear.png": saved(clear, "PNG"),
            "deep.png": saved(np.minimum(grey16, 65535), "PNG"),
            "wrong-name.jpg": saved(scene(6), "PNG"),
        }
    )
    assert set(cleaned["outcome"]) == {"accepted"}
    assert set(cleaned["extension"]) == {"png"}
    shown = decode(store.get(image_key(cleaned.loc["clear.png", "image_id"], "png")))
    assert (shown[:, 80:] == 255).all()
    assert (shown[:, :80] == scene(5)[:, :80]).all()
    deep = decode(store.get(image_key(cleaned.loc["deep.png", "image_id"], "png")))
    assert np.abs(deep[..., 0] - grey16 / 257).max() <= 1


def test_duplicates_point_at_what_they_repeat_also_in_earlier_rounds(clean):
    pixels = scene(7)
    original = saved(pixels, quality=92)
    larger = np.asarray(Image.fromarray(decode(original)).resize((320, 240)))
    first, _ = clean({"a.jpg": original, "b.jpg": original, "other.jpg": saved(scene(8))})
    image_id = first.loc["a.jpg", "image_id"]
    assert first.loc["b.jpg", ["outcome", "reason"]].tolist() == ["duplicate", "exact_bytes"]
    second, store = clean(
        {
            "bytes.jpg": original,
            "pixels.png": saved(decode(original), "PNG"),
            "resaved.jpg": saved(decode(original), quality=50),
            "resized.jpg": saved(larger, quality=85),
            "new.jpg": saved(scene(9)),
        }
    )
    assert second["outcome"].to_dict() == {
        "bytes.jpg": "duplicate",
        "pixels.png": "duplicate",
        "resaved.jpg": "duplicate",
        "resized.jpg": "duplicate",
        "new.jpg": "accepted",
    }
    assert second["reason"].to_dict() == {
        "bytes.jpg": "exact_bytes",
        "pixels.png": "exact_pixels",
        "resaved.jpg": "near",
        "resized.jpg": "near",
        "new.jpg": "",
    }
    assert set(second["duplicate_of"].dropna()) == {image_id}
    stored = list(store.list("images"))
    assert len(stored) == 3


def test_cleaning_twice_gives_the_same_table_and_files(clean):
    files = {f"{n}.jpg": saved(scene(n)) for n in range(3)}
    first, store = clean(files)
    before = {key: store.get(key) for key in store.list("images")}
    again, _ = clean(files)
    assert list(first["stored_md5"]) == list(again["stored_md5"])
    assert {key: store.get(key) for key in store.list("images")} == before


def test_what_only_looks_alike_is_accepted_into_the_same_group(clean):
    pixels = scene(1, width=320, height=240)
    first, _ = clean({"a.jpg": saved(pixels, quality=90), "other.jpg": saved(scene(2))})
    stamped = pixels.copy()
    stamped[10:26, 10:26] = 240
    second, _ = clean(
        {
            "cropped.jpg": saved(pixels[5:-5, 6:-6], quality=90),
            "middle.jpg": saved(pixels[36:204, 48:272], quality=90),
            "mirrored.jpg": saved(pixels[:, ::-1], quality=90),
            "mirrored_again.jpg": saved(pixels[:, ::-1], quality=60),
            "other.jpg": saved(scene(3)),
            "stamped.jpg": saved(stamped, quality=90),
            "turned.jpg": saved(np.rot90(pixels), quality=90),
        }
    )
    original, mirrored = first.loc["a.jpg", "image_id"], second.loc["mirrored.jpg"]
    again = second.loc["mirrored_again.jpg"]
    assert again[["outcome", "reason"]].tolist() == ["duplicate", "near"]
    assert again["duplicate_of"] == mirrored["image_id"]
    accepted = second[second["outcome"] == "accepted"]
    assert len(accepted) == 6
    alike = accepted.drop(index="other.jpg")
    assert (alike["flags"] == "similar").all()
    assert alike.loc[["cropped.jpg", "middle.jpg", "mirrored.jpg"], "similar_to"].eq(original).all()
    assert {*alike["group_id"], again["group_id"]} == {original}
    other = accepted.loc["other.jpg"]
    assert (other["group_id"], other["flags"]) == (other["image_id"], "")
    assert pd.isna(other["similar_to"])


def test_a_image_between_two_groups_joins_the_older_and_says_so(clean):
    # The middle of the middle is too small a part of the whole to be found in it.
    whole = scene(1, width=400, height=400)
    middle, innermost = whole[80:320, 80:320], whole[128:272, 128:272]
    first, _ = clean({"a.png": saved(innermost, "PNG"), "b.png": saved(whole, "PNG")})
    groups = first["group_id"]
    assert groups.is_unique
    second, _ = clean({"m.png": saved(middle, "PNG"), "w.png": saved(whole[::-1], "PNG")})
    assert second.loc["m.png", ["group_id", "flags"]].tolist() == [
        groups["a.png"],
        "similar,joins_groups",
    ]
    assert second["joins"].to_dict() == {"m.png": groups["b.png"], "w.png": ""}
    # A mirrored whole is like the whole alone.
    assert second.loc["w.png", ["group_id", "flags"]].tolist() == [groups["b.png"], "similar"]


def test_new_look_alikes_are_a_group_named_by_the_first(clean):
    pixels = scene(1)
    files = {"c.jpg": pixels, "a.jpg": pixels[::-1], "b.jpg": pixels[:, ::-1]}
    cleaned, _ = clean({name: saved(each) for name, each in files.items()})
    first = cleaned.loc["a.jpg", "image_id"]
    assert cleaned["group_id"].to_dict() == dict.fromkeys(files, first)
    assert cleaned["flags"].to_dict() == {"a.jpg": "", "b.jpg": "similar", "c.jpg": "similar"}


def test_signatures_are_kept_and_made_anew_where_they_are_missing(clean):
    sound = saved(scene(1), quality=90)
    files = {"a.jpg": sound, "b.png": saved(scene(2), "PNG"), "c.gif": saved(scene(3), "GIF")}
    first, store = clean({**files, "copy.jpg": sound, "cut.jpg": sound[:500]})
    kept = store.get("signatures/round-0001.npy")
    rows = signatures(store, "round-0001")
    assert rows.dtype == SIGNATURE
    accepted = first.loc[first["outcome"] == "accepted", "image_id"]
    assert rows["image_id"].astype(str).tolist() == sorted(accepted)
    again = {"again.jpg": saved(scene(1), quality=50), "mirror.png": saved(scene(2)[::-1], "PNG")}
    for damage in (None, b"", kept[:-7], np.lib.format.magic(1, 0) + b"\x05\x00junk\n"):
        if damage is not None:
            store.put("signatures/round-0001.npy", damage)
        else:
            store.local_path("signatures/round-0001.npy").unlink()
        cleaned, _ = clean(again, later_than=1)
        assert cleaned["reason"].to_dict() == {"again.jpg": "near", "mirror.png": ""}
        assert cleaned.loc["mirror.png", "flags"] == "similar"
        assert store.get("signatures/round-0001.npy") == kept


def test_signatures_of_an_earlier_release_are_read_where_it_left_them(clean):
    _, store = clean({"a.jpg": saved(scene(1), quality=90)})
    key = "signatures/round-0001.npy"
    store.put("likenesses/round-0001.npy", store.get(key))
    store.local_path(key).unlink()
    cleaned, _ = clean({"again.jpg": saved(scene(1), quality=50)}, later_than=1)
    assert cleaned["reason"].to_dict() == {"again.jpg": "near"}
    # Missing signatures would be computed and written.
    assert not store.exists(key)


def test_what_a_person_put_back_is_accepted_unless_it_is_there_or_no_image(clean):
    sound = saved(scene(1), quality=90)
    grey = saved(np.full((120, 160, 3), 120, np.uint8), "PNG")
    strict = CleaningPolicy(mandatory_metadata=("licence",))
    first, _ = clean({"a.jpg": sound, "flat.png": grey})
    assert first["outcome"].to_dict() == {"a.jpg": "accepted", "flat.png": "quarantined"}
    files = {
        "again.jpg": saved(scene(1), quality=50),
        "bytes.jpg": sound,
        "cut.jpg": sound[:500],
        "flat.png": grey,
        "pixels.png": saved(decode(sound), "PNG"),
        "wrong.jpg": saved(scene(4)),
    }
    stamps = {name: f"released:{hashlib.sha256(data).hexdigest()}" for name, data in files.items()}
    columns = {"wrong.jpg": {"problem": "wrong.jpg.json: no JSON"}}
    second, _ = clean(files, strict, stamps=stamps, columns=columns)
    assert second["outcome"].to_dict() == {
        "again.jpg": "accepted",
        "bytes.jpg": "duplicate",
        "cut.jpg": "quarantined",
        "flat.png": "accepted",
        "pixels.png": "duplicate",
        "wrong.jpg": "accepted",
    }
    again = second.loc["again.jpg"]
    assert again["flags"] == "similar,released"
    assert again["group_id"] == again["similar_to"] == first.loc["a.jpg", "image_id"]
    assert second.loc["flat.png", "flags"] == "uniform,released"


def test_metadata_that_is_missing_or_wrong_keeps_a_image_out(clean):
    policy = CleaningPolicy(mandatory_metadata=("geo", "licence", "consent"))
    whole = {"latitude": 53.5, "longitude": 9.9, "licence": "CC0", "consent": "given"}
    twice, late, again = saved(scene(1)), saved(scene(8)), saved(scene(8), quality=50)
    files = {name: saved(scene(number)) for number, name in enumerate("abcd", start=2)}
    cleaned, _ = clean(
        files | dict.fromkeys(["t1", "t2", "t3"], twice) | {"u1": late, "u2": again, "u3": late},
        policy,
        columns={
            "a": whole,
            "b": {**whole, "longitude": None, "licence": " "},
            "c": {**whole, "problem": "c.json: licence is no text"},
            **dict.fromkeys(["t2", "t3", "u2", "u3"], whole),
        },
    )
    assert cleaned["reason"].to_dict() == {
        "a": "",
        "b": "missing metadata: geo, licence",
        "c": "c.json: licence is no text",
        "d": "missing metadata: geo, licence, consent",
        "t1": "missing metadata: geo, licence, consent",
        "t2": "",
        "t3": "exact_bytes",
        "u1": "missing metadata: geo, licence, consent",
        "u2": "",
        "u3": "near",
    }
    assert cleaned.loc["u3", "duplicate_of"] == cleaned.loc["u2", "image_id"]
    assert cleaned.loc["t3", "duplicate_of"] == cleaned.loc["t2", "image_id"]


def test_hundreds_of_images_with_one_hash_are_done_at_once(clean, monkeypatch):
    # Faint noise on one ground: hashes repeat, and no image is the same as another.
    rng = np.random.default_rng(0)
    ground = scene(1, width=64, height=64) // 2
    looked = Counter()
    decode_image = looking.decode_image
    monkeypatch.setattr(
        looking, "decode_image", lambda raw: looked.update([raw]) or decode_image(raw)
    )
    files = {}
    for number in range(600):
        pixels = ground.copy()
        top, left = rng.integers(0, 48, 2)
        pixels[top : top + 16, left : left + 16] += rng.integers(0, 100, dtype=np.uint8)
        files[f"{number:04d}.png"] = saved(pixels, "PNG", compress_level=1)
    cleaned, _ = clean(files)
    assert set(looked.values()) == {1}
    assert cleaned["group_id"].nunique() == 1
    assert (cleaned["outcome"] != "quarantined").all()


def test_passes_can_be_sent_elsewhere_and_notice_what_changed(clean):
    cleaned, store = clean({"a.gif": saved(scene(1), "GIF")})
    image_id = cleaned.loc["a.gif", "image_id"]
    look = pickle.loads(pickle.dumps(ProbeImage(store, POLICY)))(image_id)
    assert look.facts["stored_sha256"] == cleaned.loc["a.gif", "stored_sha256"]
    # What the lake has lost is no reason to give up an image.
    with pytest.raises(DataError, match="ffff"):
        ProbeImage(store, POLICY)("f" * 64)
    keep = pickle.loads(pickle.dumps(KeepImage(store)))
    wrong = Accepted(image_id, "png", "0" * 64, pixels=19_200, is_converted=True)
    assert "changed in the lake" in keep(wrong)


def test_the_result_does_not_depend_on_the_number_of_threads(clean, tmp_path, monkeypatch):
    files = {f"{n % 7}-{n}.jpg": saved(scene(n % 7), quality=50 + n) for n in range(30)}
    tables = []
    for workers in (1, 5):
        monkeypatch.setattr("annotation_platform.images.parallel._WORKERS", workers)
        cleaned, store = clean(files, later_than=0)
        tables.append((cleaned, store.get("signatures/round-0001.npy")))
    pd.testing.assert_frame_equal(tables[0][0], tables[1][0])
    assert tables[0][1] == tables[1][1]


def test_known_pairs_of_blood_cells(public, clean):
    folder = public("neardup_synth")
    files = {path.name: path.read_bytes() for path in sorted((folder / "img").iterdir())}
    bases = {name: data for name, data in files.items() if name.endswith("_base.jpg")}
    first, _ = clean(bases)
    assert set(first["outcome"]) == {"accepted"}
    second, _ = clean({name: data for name, data in files.items() if name not in bases})
    groups = first["group_id"]
    outcomes = Counter()
    for base, variant, relation in public_pairs(folder):
        row = second.loc[variant]
        kind = variant.split("_", 1)[1].split(".")[0]
        outcomes[relation, kind, row["reason"] or row["flags"].split(",")[-1]] += 1
        if row["outcome"] == "duplicate":
            assert row["duplicate_of"] == first.loc[base, "image_id"]
        assert row["group_id"] == groups[base], variant
    assert outcomes == {
        ("exact_bytes", "byte_copy", "exact_bytes"): 16,
        ("exact_pixels", "exif_only", "exact_pixels"): 16,
        ("exact_pixels", "lossless", "exact_pixels"): 4,
        ("near", "q40", "near"): 16,
        ("near", "half", "near"): 16,
        ("near", "bright", "near"): 16,
        ("near_after_exif_rotation", "exifrot6", "near"): 16,
        ("near", "crop4", "similar"): 16,
        ("near", "stamp", "similar"): 16,
        ("hard_near", "crop20", "similar"): 16,
        ("policy_flip", "hflip", "similar"): 16,
        ("policy_rot", "rot90", "similar"): 16,
    }
